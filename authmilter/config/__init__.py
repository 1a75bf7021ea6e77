"""Configuration: declared once as dataclasses, read from INI, rendered as sample and manual."""
