"""authmilter: authenticates, decides on and signs mail for Postfix and Sendmail."""

__version__ = "0.1.0"
