"""Signatures of identities: a sigstore instance vouches for who signed, and its log for when, so nobody keeps a key.

The signer proves an identity to Fulcio with an OIDC token, gets a certificate that lives ten minutes, and enters the
signature into a Rekor log. What comes of that is a bundle, which verifies offline against the *trusted root* of the
instance: the certificates and logs whose word is taken. Which instance that is, is always said by whoever asks: nothing
is fetched, and no public instance is believed by itself.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fairlead.core.errors import InvalidInput, MissingExtra, SignatureInvalid, Unavailable

if TYPE_CHECKING:
    from types import ModuleType

    from fairlead.core.signatures import Statement, TrustedSigner

AUDIENCE = "sigstore"
"""What a token that is signed with must be for."""

_ANSWER_LENGTH = 300
_ISSUER_EXTENSION = "1.3.6.1.4.1.57264.1.1"


def sign_as_identity(statement: Statement, token: str, trust_config: str) -> dict[str, Any]:
    """The bundle of a statement, signed as whoever the OIDC token is for.

    `trust_config` is a sigstore client trust configuration (JSON): the instance's addresses and its trusted root.

    Raises:
        MissingExtra: without `fairlead[sigstore]`.
        InvalidInput: if the token or the configuration is none, or the instance refuses the token.
        Unavailable: if the instance does not issue a certificate, or does not log the signature.
    """
    identity, context = _read_means(token, trust_config)
    try:
        # The signer checks that a log which the root names has the certificate. It lives for this signature alone, but
        # without a cache each step would take a key of its own.
        with context.signer(identity, cache=True) as signer:
            bundle = signer.sign_dsse(_sigstore("dsse").Statement(statement.to_bytes()))
    # The library's errors have no base of their own, and some say nothing.
    except Exception as error:
        answer = _answer_behind(error)
        if answer is not None and 400 <= answer.status_code < 500:
            raise InvalidInput(
                f"The sigstore instance refused to sign ({answer.status_code}): {answer.text[:_ANSWER_LENGTH]}",
                hint="Check whom the token is for and who issued it.",
            ) from None
        said = str(error) or type(error).__name__
        raise Unavailable(f"The sigstore instance did not sign: {said}", hint="Try again.") from error
    return json.loads(bundle.to_json())


def check_means(token: str, trust_config: str) -> None:
    """Check what is to be signed with, without signing: a log forgets nothing.

    Raises:
        MissingExtra, InvalidInput: as `sign_as_identity`.
    """
    _read_means(token, trust_config)


def is_signed_by_identity(envelope: Mapping[str, Any], signer: TrustedSigner, payload: bytes) -> bool:
    """Whether a bundle over a payload is one of a signer's identity.

    Raises:
        MissingExtra: without `fairlead[sigstore]`.
        SignatureInvalid: if it says that it is, and the signer's trusted root does not bear it out.
    """
    if signer.identity is None or signer.issuer is None or signer.trusted_root is None:
        return False
    models, verify = _sigstore("models"), _sigstore("verify")
    try:
        bundle = models.Bundle.from_json(json.dumps(envelope))
        root = _read_root(signer.trusted_root)
        policy = verify.policy.Identity(identity=signer.identity, issuer=signer.issuer)
        _, verified = verify.Verifier(trusted_root=root).verify_dsse(bundle, policy)
    # The library meets what it did not expect with errors of many kinds, and none of them is a signature.
    except Exception as error:  # noqa: BLE001
        names, issuer = _claims(envelope)
        if signer.identity in names and signer.issuer == issuer:
            said = f"{type(error).__name__}: {error}"[:_ANSWER_LENGTH]
            raise SignatureInvalid(
                f"it is said to be of {signer.name}, whose trusted root does not bear it out ({said})",
                hint=f"Compare the sigstore instance that signed with: fairlead signer show {signer.name}",
            ) from None
        return False
    return bool(verified == payload)


def authorities_of(trust_config: str) -> list[str]:
    """The addresses that a client trust configuration has a token sent to.

    Raises:
        InvalidInput: if it is none.
    """
    try:
        return [str(each["url"]) for each in json.loads(trust_config)["signingConfig"]["caUrls"]]
    except (ValueError, KeyError, TypeError):
        raise InvalidInput(
            "This is no client trust configuration of a sigstore instance.", hint="Check --trust-config."
        ) from None


def claimed_identity(envelope: Mapping[str, Any]) -> str:
    """Whom a bundle's certificate is for and by whose word, which is not verified: to tell people, not to decide."""
    names, issuer = _claims(envelope)
    return f"{' or '.join(names)} by {issuer}" if names else "somebody"


def parse_trusted_root(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Check a trusted root.

    Raises:
        MissingExtra: without `fairlead[sigstore]`.
        InvalidInput: if it is none.
    """
    _sigstore("models")
    try:
        _read_root(document).get_fulcio_certs()
    except Exception as error:  # noqa: BLE001  (see above)
        raise InvalidInput(
            f"This is no trusted root of a sigstore instance: {type(error).__name__}.",
            hint="Give its trusted_root.json, as its operator publishes it.",
        ) from None
    return document


def _read_means(token: str, trust_config: str) -> tuple[Any, Any]:
    """The identity of a token, and the instance that is to vouch for it, as the library has them."""
    models, errors = _sigstore("models"), _sigstore("errors")
    try:
        config = models.ClientTrustConfig.from_json(trust_config)
        identity = _sigstore("oidc").IdentityToken(token)
        return identity, _sigstore("sign").SigningContext.from_trust_config(config)
    except (ValueError, errors.Error) as error:
        raise InvalidInput(
            f"This cannot be signed with: {error}",
            hint=f"Check --trust-config, and that the token is for the audience {AUDIENCE} and has not expired.",
        ) from None


def _claims(envelope: Mapping[str, Any]) -> tuple[list[str], str]:
    """The names in a bundle's certificate, and who vouched for them; none where it cannot be read."""
    from cryptography import x509

    try:
        raw = base64.b64decode(envelope["verificationMaterial"]["certificate"]["rawBytes"])
        extensions = x509.load_der_x509_certificate(raw).extensions
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        issuer = extensions.get_extension_for_oid(x509.ObjectIdentifier(_ISSUER_EXTENSION)).value
        return [str(name.value) for name in names], issuer.public_bytes().decode()
    # It is whatever somebody sent, and the library has errors of its own for much of that.
    except Exception:  # noqa: BLE001
        return [], ""


def _answer_behind(error: BaseException | None) -> Any:
    """The HTTP answer that an error comes from; None without one."""
    while error is not None:
        answer = getattr(error, "response", None)
        if answer is not None:
            return answer
        error = error.__cause__ or error.__context__
    return None


def _read_root(document: Mapping[str, Any]) -> Any:
    from sigstore_models.trustroot import v1

    return _sigstore("models").TrustedRoot(v1.TrustedRoot.from_json(json.dumps(document)))


def _sigstore(module: str) -> Any:
    from importlib import import_module

    try:
        found: ModuleType = import_module(f"sigstore.{module}")
    except ModuleNotFoundError as error:
        raise MissingExtra(
            "Signatures of identities need sigstore.", hint="Run: pip install 'fairlead[sigstore]'"
        ) from error
    return found
