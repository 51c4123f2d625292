"""A real server, asked as its clients do."""

import os

from serving_examples import Server


def test_half_plus_two_is_served(server: Server) -> None:
    answer = server.post("/v1/models/half:predict", {"instances": [1.0, 2.0, 5.0]})
    assert answer.status == 200
    assert answer.json == {"predictions": [2.5, 3.0, 4.5]}


def test_threads_and_memory_are_set_before_tensorflow_is_used(server: Server) -> None:
    """Nothing of the command may list the devices first: a GPU's memory would be taken all at once."""
    log = os.pread(server.errors.fileno(), 1 << 20, 0)
    assert b"half version 123 is served" in log
    assert b"was in use before" not in log
