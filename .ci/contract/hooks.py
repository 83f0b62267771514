"""What a client of these APIs knows and a schema cannot express."""

import uuid

import schemathesis

used = set()


@schemathesis.hook
def before_call(context, case, kwargs):
    """A key names one request, so a repeated one is replaced; and a pass that no lobby gave is not sent."""
    if not case.meta or not case.meta.generation.mode.is_positive or not case.headers:
        return
    key = case.headers.get("Idempotency-Key")
    if key is not None and key in used:
        case.headers["Idempotency-Key"] = str(uuid.uuid4())
    used.add(key)
    if not case.headers.get("Lobby-Pass", "pass1.").startswith("pass1."):
        del case.headers["Lobby-Pass"]
