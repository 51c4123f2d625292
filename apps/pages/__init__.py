"""What all HTML pages share: each is one self-contained file, its figures in the light or dark theme of the reader."""
