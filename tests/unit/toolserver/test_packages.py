"""What is installed, from where and which program of it runs; no network."""

import asyncio
import json
import os
import shutil
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaos.toolserver import packages
from kaos.toolserver.packages import PATTERNS, PackageError, Runtime, prepare


@pytest.mark.parametrize(
    ("runtime", "name", "good"),
    [
        ("python", "mcp-server-time", True),
        ("python", "mcp_server.git[all,more]==1.0rc1", True),
        ("python", "x", True),
        ("python", "mcp-server-time>=1", False),
        ("python", "-r/etc/passwd", False),
        ("python", "--index-url=http://evil", False),
        ("python", "git+https://evil/x", False),
        ("python", "./here", False),
        ("python", "a b", False),
        ("python", "a\nb", False),
        ("python", "x\n", False),
        ("python", "a;id", False),
        ("node", "server-everything", True),
        ("node", "@modelcontextprotocol/server-everything@2026.8.31", True),
        ("node", "file:../x", False),
        ("node", "@scope", False),
        ("node", "../x", False),
        ("node", "a/b", False),
        ("node", "--prefix", False),
        ("node", "x@file:/etc", False),
        ("node", "$(id)", False),
    ],
)
def test_a_name_is_a_name(runtime: str, name: str, good: bool) -> None:
    assert (PATTERNS[runtime].fullmatch(name) is not None) is good


@given(st.text(), st.sampled_from(["python", "node"]))
def test_no_name_is_an_option_a_path_or_has_a_word_of_a_shell(text: str, runtime: str) -> None:
    if PATTERNS[runtime].fullmatch(text):
        assert not text.startswith(("-", ".", "/"))
        assert ".." not in text.split("/")
        assert not set(text) & set(" \t\n\r;&|$`'\"\\<>(){}*?~#:")


def wheel(folder: Path, name: str, scripts: Sequence[str]) -> Path:
    """A wheel with these console scripts."""
    info = f"{name}-1.2.dist-info"
    entries = "".join(f"{script} = {name}_stub:main\n" for script in scripts)
    path = folder / f"{name}-1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        archive.writestr(f"{info}/entry_points.txt", f"[console_scripts]\n{entries}")
    return path


def offline(folder: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "npm_config_offline": "true",
        "npm_config_prefix": str(folder / "global"),
    }


async def tools_of(argv: list[str], *words: str) -> str:
    """What the program answers to a question for its tools."""
    process = await asyncio.create_subprocess_exec(
        *argv, *words, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    question = b'{"jsonrpc": "2.0", "id": 1, "method": "tools/list"}\n'
    answer, _ = await process.communicate(question)
    return answer.decode()


async def test_a_python_package_is_installed_once_into_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without pip itself, which takes seconds: the scenarios in tests/e2e have that."""
    folder, ran = tmp_path / "folder", []

    async def run(argv: Sequence[str], env: Mapping[str, str]) -> str:
        ran.append(list(argv))
        site = folder / "lib" / "python3.11" / "site-packages"
        site.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(wheel(tmp_path, "stub", ("other", "Stub"))) as archive:
            archive.extractall(site)
        return ""

    monkeypatch.setattr(packages, "_run", run)
    for _ in range(2):
        argv = await prepare("python", "stub[x]==1.2", folder, {})
        assert argv == [str(folder / "bin" / "Stub")]
    assert [command[1:3] for command in ran] == [["-m", "venv"], ["-m", "pip"]]
    assert ran[1][-2:] == ["--", "stub[x]==1.2"]


@pytest.mark.process
async def test_what_a_tool_says_of_its_failure_is_one_line() -> None:
    script = "import sys; print('ERROR: no such thing\\nERROR: bye\\n\\nhint'); sys.exit(1)"
    with pytest.raises(PackageError, match=r"failed: ERROR: no such thing$"):
        await packages._run([sys.executable, "-c", script], {})
    with pytest.raises(PackageError, match=r"^/no/such cannot be started: No such file"):
        await packages._run(["/no/such"], {})


@pytest.mark.parametrize(
    ("name", "programs", "found"),
    [
        ("mcp-server.Time", ["mcp_server_time", "x"], "mcp_server_time"),
        ("pkg", ["only"], "only"),
    ],
)
def test_the_program_is_the_one_of_the_packages_name_or_the_only_one(
    name: str, programs: list[str], found: str
) -> None:
    assert packages._program(name, name, programs) == found


@pytest.mark.parametrize(("programs", "has"), [([], "none"), (["b", "a"], r"several \(a, b\)")])
def test_a_package_without_one_is_told(programs: list[str], has: str) -> None:
    with pytest.raises(PackageError, match=f"could be its server, but {has}"):
        packages._program("pkg", "pkg", programs)


def image_with(folder: Path, name: str, program: str | dict[str, str]) -> None:
    """What `npm install --global` leaves in an image."""
    home = folder / "global" / "lib" / "node_modules" / name
    home.mkdir(parents=True)
    manifest = {"name": name, "version": "1.0.0", "bin": program}
    (home / "package.json").write_text(json.dumps(manifest))
    (home / "main.js").write_text("console.log(JSON.stringify(process.argv.slice(2)))\n")


@pytest.mark.process
@pytest.mark.skipif(shutil.which("npm") is None, reason="needs npm")
@pytest.mark.parametrize("version", ["", "@1.0.0"])
async def test_a_node_package_of_the_image_runs_as_it_is(tmp_path: Path, version: str) -> None:
    image_with(tmp_path, "@corp/stub", {"stub": "main.js"})
    argv = await prepare("node", f"@corp/stub{version}", tmp_path, offline(tmp_path))
    assert Path(argv[0]).name == "node"
    assert json.loads(await tools_of(argv, "a b", "$(x)")) == ["a b", "$(x)"]


@pytest.mark.skipif(shutil.which("npm") is None, reason="needs npm")
async def test_a_node_package_of_another_version_is_asked_for(tmp_path: Path) -> None:
    image_with(tmp_path, "stub", "main.js")
    with pytest.raises(PackageError, match=r"^install --no-audit --no-fund … failed: npm e"):
        await prepare("node", "stub@2.0.0", tmp_path, offline(tmp_path))


async def test_an_image_without_node_is_told_with_the_way_out(tmp_path: Path) -> None:
    runtime: Runtime = "node"
    with pytest.raises(PackageError, match=r"^stub needs node and npm, which are not on the PATH"):
        await prepare(runtime, "stub", tmp_path, {"PATH": str(tmp_path)})


async def test_an_installation_that_hangs_is_cut_short_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packages, "TIMEOUT", 0.2)
    pids = tmp_path / "pids"
    npm = tmp_path / "npm"
    npm.write_text(f"#!/bin/sh\nsleep 600 &\necho $! > {pids}\nwait\n")
    npm.chmod(0o755)
    (tmp_path / "node").symlink_to("/bin/true")
    path = f"{tmp_path}:{os.environ['PATH']}"
    with pytest.raises(PackageError, match=r"^stub was not installed within"):
        await prepare("node", "stub", tmp_path, {"PATH": path})
    pid = int(pids.read_text())
    async with asyncio.timeout(5):
        while alive(pid):  # noqa: ASYNC110 - init reaps in its own time
            await asyncio.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
