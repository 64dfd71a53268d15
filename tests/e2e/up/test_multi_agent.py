"""The README's second example: a model that cannot be had, and one in its place."""

from tests.e2e.up.program import MULTI, Kaos
from tests.e2e.up.test_simple_agent import assert_completion, post

MODEL = "llama3.2:latest"


def test_a_model_that_cannot_be_had_is_told_with_the_ways_out(kaos: Kaos) -> None:
    done = kaos.run("up", str(MULTI), "--timeout", "120")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    line = next(line for line in done.stderr.splitlines() if "ModelAPI/ollama" in line)
    assert MODEL in line
    assert "--model-override" in line
    assert kaos.left_behind() == []


def test_another_model_in_its_place_and_agents_before_their_peers(kaos: Kaos) -> None:
    up = kaos.run("up", str(MULTI), "-d", "--model-override", f"{MODEL}=smollm2:135m")
    assert up.returncode == 0, up.stdout + up.stderr + kaos.log()
    assert_completion(post(f"{kaos.gateway}/coordinator"))
    names = kaos.kubectl("get", "agents", "-o", "name").split()
    assert names == [f"agent.kaos.tools/{n}" for n in ("analyst", "coordinator", "researcher")]
    assert kaos.run("status").returncode == 0
    down = kaos.run("down")
    assert (down.returncode, kaos.left_behind()) == (0, [])
    assert kaos.run("status").returncode == 3
