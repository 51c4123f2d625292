"""A real server, asked as its clients do."""

from serving_examples import Server


def test_half_plus_two_is_served(server: Server) -> None:
    answer = server.post("/v1/models/half:predict", {"instances": [1.0, 2.0, 5.0]})
    assert answer.status == 200
    assert answer.json == {"predictions": [2.5, 3.0, 4.5]}
