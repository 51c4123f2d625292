"""CSV files as tables of text: nothing is guessed, so ids keep their leading zeros."""

import csv
from pathlib import Path

import pandas as pd


def read_table(path: Path) -> pd.DataFrame:
    """Read a CSV file (comma, semicolon or tab; any line ends; with or without a byte-order mark) as text.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is empty, not UTF-8, or a row has another number of fields than the header.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            separator = max(",;\t", key=file.readline().count)
            file.seek(0)
            reader = csv.reader(file, delimiter=separator, strict=True)
            rows = [(reader.line_num, row) for row in reader if row]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error.reason}). Save it as UTF-8.") from error
    except csv.Error as error:
        raise ValueError(f"{path} is not a regular table: {error}.") from error
    if not rows:
        raise ValueError(f"{path} is empty; expected a header line and one row per picture.")
    header = [column.strip() for column in rows[0][1]]
    if len(set(header)) < len(header):
        raise ValueError(f"{path} has two columns of one name: {', '.join(header)}.")
    for line, row in rows[1:]:
        if len(row) != len(header):
            raise ValueError(f"{path} is not a regular table: line {line} has {len(row)} fields, not {len(header)}.")
    return pd.DataFrame([row for _, row in rows[1:]], columns=header, dtype=str)
