"""The `fairlead` command: its groups, and how errors become exit codes.

Exit codes: 0 ok, 1 failure, 2 usage, 3 not found, 4 authentication or permission, 5 conflict, 6 refused by a gate or
rule, 7 partial success, 8 awaiting approval (of `model promote --wait`); 130 interrupted.
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
from typing import TYPE_CHECKING, Annotated

import typer
from typer.exceptions import TyperException

from fairlead import __version__
from fairlead.cli import (
    agent,
    artifact,
    audit,
    budget,
    bundle,
    cache,
    catalog,
    deploy,
    deployments,
    environment,
    events,
    feature_streams,
    features,
    features_erase,
    features_expect,
    features_feast,
    features_federation,
    features_online,
    features_push,
    features_snapshots,
    features_stores,
    images,
    imports,
    issuer,
    keys,
    lifecycle,
    lineage,
    location,
    login,
    policy,
    profile,
    promotions,
    record,
    replica_policy,
    replicate,
    scrub,
    server,
    signer,
    store,
    target,
    token,
    tracking_server,
    webhook,
    work,
    workspace,
)
from fairlead.cli.context import current_output, group
from fairlead.cli.output import without_controls
from fairlead.core.errors import ExitCode, FairleadError, InvalidInput, Unavailable
from fairlead.core.problems import to_problem
from fairlead.sync.store.memory import keep_freed_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

INTERRUPTED = 130

app = group("Models and features, versioned once and true in every cloud they may go to.", add_completion=True)
app.add_typer(server.app)
app.add_typer(promotions.app, name="model")
app.add_typer(artifact.app, name="artifact")
app.add_typer(artifact.verify_app)
app.add_typer(features.app, name="features")
app.add_typer(feature_streams.app, name="stream")
app.add_typer(agent.app, name="agent")
features.app.add_typer(features_expect.app, name="expect")
features.app.add_typer(features_erase.app)
features.app.add_typer(features_feast.app)
features.app.add_typer(features_federation.app)
features.app.add_typer(features_push.app)
features.app.add_typer(features_snapshots.app)
features.app.add_typer(features_stores.app)
features.app.add_typer(features_online.servers, name="servers")
app.add_typer(environment.app, name="environment")
app.add_typer(policy.app, name="policy")
app.add_typer(policy.role_app, name="role")
app.add_typer(location.app, name="location")
app.add_typer(replica_policy.app, name="replica-policy")
app.add_typer(lifecycle.app, name="retention")
app.add_typer(replicate.app, name="replicate")
app.add_typer(deploy.app)
app.add_typer(bundle.app, name="bundle", cls=bundle.BundleGroup)
app.add_typer(images.app, name="images")
app.add_typer(profile.app, name="profile", cls=profile.ProfileGroup)
app.add_typer(deployments.app, name="deploy")
app.add_typer(target.app, name="target")
app.add_typer(catalog.app, name="catalog")
app.add_typer(keys.app, name="keys")
app.add_typer(record.app, name="record")
app.add_typer(record.restore_app)
app.add_typer(login.app)
app.add_typer(token.app, name="token")
app.add_typer(workspace.app, name="workspace")
app.add_typer(signer.app, name="signer")
app.add_typer(issuer.app, name="issuer")
app.add_typer(audit.app)
app.add_typer(audit.audit_app, name="audit")
app.add_typer(events.app)
app.add_typer(lineage.app)
app.add_typer(webhook.app, name="webhook")
app.add_typer(work.app)
app.add_typer(scrub.app)
app.add_typer(store.app, name="store")
app.add_typer(budget.app, name="budget")
app.add_typer(cache.app, name="cache")
app.add_typer(tracking_server.app, name="tracking-server")
app.add_typer(imports.app, name="import")


@app.callback(invoke_without_command=True, no_args_is_help=True)
def root(
    *, version: Annotated[bool, typer.Option("--version", help="Print the version and leave.", is_eager=True)] = False
) -> None:
    """Models and features, versioned once and true in every cloud they may go to."""
    if version:
        sys.stdout.write(f"fairlead {__version__}\n")
        raise typer.Exit


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and leave with its exit code."""
    keep_freed_memory()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name that the terminal's encoding lacks is shown escaped rather than being the end of the answer.
            stream.reconfigure(errors="backslashreplace")
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command; errors go to stderr, and the exit code says their kind."""
    try:
        left = app(args=None if arguments is None else list(arguments), prog_name="fairlead", standalone_mode=False)
        return _leave(left)
    except SystemExit as leaving:
        return _leave(leaving.code)
    except typer.Abort:
        return _leave(INTERRUPTED)
    except TyperException as error:
        return _tell_usage(error, sys.argv[1:] if arguments is None else arguments)
    except FairleadError as error:
        return _tell(error)
    except TimeoutError as error:
        return _tell(Unavailable(str(error)))
    except Exception as error:
        if os.environ.get("FAIRLEAD_DEBUG"):
            raise
        hint = "This is a mistake of Fairlead's. Set FAIRLEAD_DEBUG=1 to see where."
        return _tell(FairleadError(f"{type(error).__name__}: {error}", hint=hint))
    return ExitCode.OK


def _leave(code: object) -> int:
    if code == INTERRUPTED:
        sys.stderr.write("Interrupted. Run the same command again to go on.\n")
    return code if isinstance(code, int) else ExitCode.OK


def _tell_usage(error: TyperException, arguments: Sequence[str]) -> int:
    """A command that was typed wrongly: its options were not read, so what it says of its output is looked for."""
    text = " ".join(arguments).replace("=", " ")
    is_json = re.search(r"(^| )(--output|-o) ?json( |$)", text) or os.environ.get("FAIRLEAD_OUTPUT") == "json"
    context = getattr(error, "ctx", None)
    path = "fairlead" if context is None else context.command_path
    if not is_json:
        show: Callable[[], None] | None = getattr(error, "show", None)
        if show is None:
            return _tell(InvalidInput(error.format_message(), hint=f"See: {path} --help"))
        show()
        return error.exit_code
    return _tell(InvalidInput(error.format_message(), hint=f"See: {path} --help"), is_json=True)


def _tell(error: FairleadError, *, is_json: bool = False) -> int:
    if is_json or current_output().form == "json":
        # ASCII: an error may quote anything.
        sys.stderr.write(json.dumps(to_problem(error), indent=2) + "\n")
        return error.exit_code
    lines = [f"error: {error.detail}"]
    plan = error.attributes.get("plan")
    if isinstance(plan, dict):
        from fairlead.cli.plans import describe_plan

        lines.append(describe_plan(plan).rstrip())
    if error.hint:
        lines.append(error.hint)
    sys.stderr.write(without_controls("\n".join(lines)) + "\n")
    return error.exit_code


if __name__ == "__main__":
    main()
