"""What all HTML pages share: one self-contained file each, with figures that follow the reader's light or dark theme."""
