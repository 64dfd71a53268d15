"""Every check of the project, each in an environment of its own: `nox -l` lists them."""

import os

import nox

nox.needs_version = ">=2025.2.9"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.sessions = ["lint", "unit", "processes", "runtime", "chaos", "e2e", "docs"]
nox.options.error_on_missing_interpreters = False
# A user's own settings must not decide whether the tests pass.
for name in ("KAOS_SERVICE_MAP", "PYTHONOPTIMIZE"):
    os.environ.pop(name, None)

LOCK = "requirements/ci.txt"
ON_ANY_API_SERVER = (
    "tests/unit/examples",
    "tests/unit/runtime/test_integration_http.py",
    "tests/unit/runtime/test_program.py",
    "tests/unit/testing/test_fixtures.py",
)
# A worker more than there are cores: some of a test's time is spent waiting for a socket.
WORKERS = ("-n", str(1 + (os.cpu_count() or 1)))
PYPROJECT = nox.project.load_toml("pyproject.toml")


def install(
    session: nox.Session, *groups: str, extras: str = "local", editable: bool = True
) -> None:
    """Install the project with what a session needs, at the locked versions."""
    wanted = [
        requirement
        for group in groups
        for requirement in nox.project.dependency_groups(PYPROJECT, group)
    ]
    project = ["-e", f".[{extras}]"] if editable else [f".[{extras}]"]
    session.install("-c", LOCK, *project, *wanted)


@nox.session
def lint(session: nox.Session) -> None:
    """Format, lint, import contract, strict types."""
    install(session, "lint", "test", "e2e", "integration")
    session.install("-c", LOCK, "nox")
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")
    session.run("lint-imports")
    session.run("mypy")


@nox.session
def unit(session: nox.Session) -> None:
    """The fast tests; `-- --cov` counts the lines and branches they reach, at twice the time."""
    install(session, "test", "e2e")
    session.run("pytest", *WORKERS, "-m", "not process", *session.posargs)


@nox.session
def processes(session: nox.Session) -> None:
    """The tests beside them that start a program (of ours, a pod, a client), or load LiteLLM."""
    install(session, "test", "e2e", extras="local,modelapi")
    session.run("pytest", *WORKERS, "-m", "process", *session.posargs)


@nox.session(python=["3.11", "3.12", "3.13", "3.14"])
def pythons(session: nox.Session) -> None:
    """The fast tests on each supported Python that is installed."""
    install(session, "test", "e2e")
    session.run("pytest", *session.posargs)


@nox.session
def e2e(session: nox.Session) -> None:
    """Real processes, as a user starts them; `-- --cluster current` runs them on a real cluster."""
    # The clients of Redis and PostgreSQL are for agents on the embedded cluster.
    install(session, "test", "e2e", "integration", editable=False)
    session.run("pytest", "tests/e2e", "--timeout=600", *session.posargs)


@nox.session
def integration(session: nox.Session) -> None:
    """Sessions in real Redis and PostgreSQL servers, which must be installed (Debian has both)."""
    install(session, "test", "integration")
    session.run("pytest", "tests/integration/agent", "--timeout=120", *session.posargs)


@nox.session
def runtime(session: nox.Session) -> None:
    """The library among faults of its API server; `-- --kaos-kubeconfig FILE` takes a real one."""
    install(session, "test")
    # A real one is shared by all tests, and killed; those that need no faults run on it, too.
    tests = ON_ANY_API_SERVER if session.posargs else ("-n", "auto")
    session.run("pytest", "tests/integration/runtime", "--timeout=120", *tests, *session.posargs)


@nox.session
def load(session: nox.Session) -> None:
    """An agent under load, 6 minutes; shorter: `nox -s load -- --seconds 60 --requests 1000`."""
    install(session, "test")
    session.run("pytest", "tests/load", "--timeout=3600", *session.posargs)


@nox.session
def conformance(session: nox.Session) -> None:
    """The MCP conformance suite and npm's openai client, both of which npm installs once."""
    install(session, "test")
    session.run("python", "-m", "tests.conformance.run", *session.posargs)


@nox.session
def reconcilers(session: nox.Session) -> None:
    """The controllers' tests, where `-- --kaos-kubeconfig FILE` says: a cluster with a gateway."""
    install(session, "test")
    args = ("-n", "2", "--timeout=120", *session.posargs)
    session.run("pytest", "tests/unit/reconcilers", *args)


@nox.session
def chaos(session: nox.Session) -> None:
    """Controllers among faults of all kinds, 20 s; all: `-- --seconds 300 --objects 2000`."""
    install(session, "test")
    session.run("pytest", "tests/chaos", "--timeout=1200", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Run every code block of the README and of docs/."""
    install(session, "test", "e2e", editable=False)
    session.run("pytest", "tests/docs", "--timeout=900", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Print figures of docs/benchmarks.md; `nox -s bench -- runtime/compare` runs that one."""
    install(session, "test", editable=False)
    for name in session.posargs or ("quickstart", "agent/all"):
        session.run("python", f"benchmarks/{name}.py")


@nox.session
def manifests(session: nox.Session) -> None:
    """Write what is generated from the models: manifests/crds and the reference of fields."""
    install(session)
    session.run("python", "-m", "kaos.api", "manifests/crds", "docs/reference/resources.md")


@nox.session
def lock(session: nox.Session) -> None:
    """Write the lock: one version of everything, for all Pythons and platforms."""
    session.install("uv")
    groups = [f"--group={group}" for group in PYPROJECT["dependency-groups"]]
    args = ["--universal", "--python-version=3.11", "--extra=all", "--no-emit-index-url"]
    session.run(
        *("uv", "pip", "compile", "pyproject.toml", "requirements/tools.in"),
        *args,
        *groups,
        *("--no-header", "--quiet", f"--output-file={LOCK}"),
    )
