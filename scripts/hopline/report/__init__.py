"""The report: results read from files, figures, judgements in plain words, and one self-contained page."""
