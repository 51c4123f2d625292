"""CSV files as tables of text: nothing is guessed, so ids keep their leading zeros."""

from pathlib import Path

import pandas as pd


def read_table(path: Path) -> pd.DataFrame:
    """Read a CSV file (comma, semicolon or tab; any line ends; with or without a byte-order mark) as text.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is empty, not UTF-8, or its rows have different lengths.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}.")
    try:
        with path.open(encoding="utf-8-sig") as lines:
            header = lines.readline()
        separator = max(",;\t", key=header.count)
        table = pd.read_csv(
            path, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig", index_col=False
        )
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error.reason}). Save it as UTF-8.") from error
    except pd.errors.EmptyDataError as error:
        raise ValueError(f"{path} is empty; expected a header line and one row per picture.") from error
    except pd.errors.ParserError as error:
        raise ValueError(f"{path} is not a regular table: {str(error).strip()}.") from error
    table.columns = [str(column).strip() for column in table.columns]
    if table.columns.duplicated().any():
        raise ValueError(f"{path} has two columns of one name: {', '.join(table.columns)}.")
    return table
