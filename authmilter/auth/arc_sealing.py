"""Adding a set to an Authenticated Received Chain (RFC 8617 section 5.1), for mail that is forwarded."""

from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256

from authmilter.auth.arc import AAR, AMS, AS, MAX_SETS, ArcResult, ArcSet, Chain, sealed_data
from authmilter.auth.canonical import relaxed_field
from authmilter.auth.signing import SigningError, SigningKey, field_names, make_signature, signed_fields, fold
from authmilter.errors import ConfigError
from authmilter.evidence import Result
from authmilter.model import BodyHashKey, HeaderField, Message
from authmilter.verdict import HeaderEdit
