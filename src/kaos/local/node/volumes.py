"""The volumes of a pod, as folders of this machine.

Layout below the node's folder: `pods/<uid>/volumes/<name>/` goes with the pod;
`volumes/<namespace>/<claim>/` is a PersistentVolumeClaim's and stays until the claim is deleted.

Guarantees: a name or a key from a manifest never leads out of its folder; a Secret's files are
readable by their owner only, from their first byte on; a failed set-up says which volume and why.

Does not: notice by itself that a ConfigMap or Secret changed (the pod's worker looks again),
enforce sizes or read-only mounts, or mount the host's own paths (`hostPath` is refused).
"""

import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from kaos.local.node.environment import ConfigError, Sources, field_value
from kaos.local.node.paths import UnsafePath, folder_name, inside

_PRIVATE_FOLDER, _FILE, _PRIVATE_FILE = 0o700, 0o644, 0o600

Files = dict[str, tuple[bytes, int]]
"""Content and mode by relative path."""


class VolumeError(Exception):
    """A volume cannot be set up (event `FailedMount`); the message names it."""


class Volumes:
    """Sets up and removes the folders of pods and claims. Blocking: small files only."""

    def __init__(self, node_folder: Path) -> None:
        self._pods = node_folder / "pods"
        self._claims = node_folder / "volumes"
        self._written: dict[Path, set[Path]] = {}

    def pod_folder(self, uid: str) -> Path:
        """The folder of a pod; everything in it goes with the pod."""
        return self._pods / folder_name(uid)

    def claim_folder(self, namespace: str, claim: str) -> Path:
        """The folder of a PersistentVolumeClaim."""
        return self._claims / folder_name(namespace) / folder_name(claim)

    def working_folder(self, uid: str, container: str) -> Path:
        """The working directory of a container, made if need be."""
        folder = self.pod_folder(uid) / "containers" / folder_name(container)
        folder.mkdir(parents=True, exist_ok=True, mode=_PRIVATE_FOLDER)
        return folder

    def set_up(
        self,
        pod: Mapping[str, Any],
        sources: Sources,
        has_claim: Callable[[str], bool],
    ) -> dict[str, Path]:
        """Make all volumes of a pod; may be called again after a failure.

        Args:
            pod: The pod.
            sources: The ConfigMaps and Secrets of its namespace.
            has_claim: Whether a PersistentVolumeClaim of that name exists there.

        Returns:
            The folder of each volume, by name.

        Raises:
            VolumeError: A volume cannot be set up.
        """
        metadata = pod["metadata"]
        root = self.pod_folder(metadata["uid"]) / "volumes"
        root.mkdir(parents=True, exist_ok=True, mode=_PRIVATE_FOLDER)
        folders: dict[str, Path] = {}
        for volume in pod.get("spec", {}).get("volumes") or []:
            name = volume["name"]
            try:
                if (claim := volume.get("persistentVolumeClaim")) is not None:
                    folder = self._claim(metadata["namespace"], claim["claimName"], has_claim)
                else:
                    folder = root / folder_name(name)
                    folder.mkdir(exist_ok=True, mode=_PRIVATE_FOLDER)
                    files = _files(volume, pod, sources)
                    _write(folder, files)
                    if holds_sources(volume):
                        self._remove_others(folder, files)
            except (ConfigError, UnsafePath, VolumeError, OSError) as error:
                text = f'MountVolume.SetUp failed for volume "{name}" : {error}'
                raise VolumeError(text) from error
            folders[name] = folder
        return folders

    def _remove_others(self, folder: Path, files: Files) -> None:
        """Remove what was written before and has left its source; a program's own files stay."""
        present = {inside(folder, relative) for relative in files}
        known = self._written.get(folder)
        if known is None:  # an earlier cluster process may have written it; nobody runs there yet
            known = {path for path in folder.rglob("*") if path.is_file()}
        for path in known - present:
            path.unlink(missing_ok=True)
        self._written[folder] = present

    def _claim(self, namespace: str, claim: str, has_claim: Callable[[str], bool]) -> Path:
        if not has_claim(claim):
            raise VolumeError(f'persistentvolumeclaim "{claim}" not found')
        folder = self.claim_folder(namespace, claim)
        folder.mkdir(parents=True, exist_ok=True, mode=_PRIVATE_FOLDER)
        return folder

    def remove_pod(self, uid: str) -> None:
        """Remove a pod's folder. Blocking, perhaps for long: call it in a thread."""
        folder = self.pod_folder(uid)
        shutil.rmtree(folder, ignore_errors=True)
        for known in [known for known in list(self._written) if folder in known.parents]:
            self._written.pop(known, None)

    def remove_claim(self, namespace: str, claim: str) -> None:
        """Remove a claim's folder and all data in it. Blocking: call it in a thread."""
        shutil.rmtree(self.claim_folder(namespace, claim), ignore_errors=True)

    def known_pods(self) -> list[str]:
        """The uids of the pods that have a folder."""
        return [path.name for path in self._pods.iterdir()] if self._pods.is_dir() else []


def holds_sources(volume: Mapping[str, Any]) -> bool:
    """Whether a volume has files of Secrets or ConfigMaps, which may change."""
    sources = [volume, *((volume.get("projected") or {}).get("sources") or [])]
    return any("configMap" in source or "secret" in source for source in sources)


def mounts(container: Mapping[str, Any], folders: Mapping[str, Path]) -> dict[str, Path]:
    """What stands for a container's mount paths.

    Raises:
        VolumeError: It mounts a volume that the pod does not have, or a path outside of it.
    """
    found: dict[str, Path] = {}
    for mount in container.get("volumeMounts") or []:
        if mount["name"] not in folders:
            raise VolumeError(f'volumeMount "{mount["name"]}": the pod has no such volume')
        path = folders[mount["name"]]
        if sub_path := mount.get("subPath"):
            try:
                path = inside(path, sub_path)
            except UnsafePath as error:
                raise VolumeError(f'volumeMount "{mount["name"]}": {error}') from error
            if not path.exists():
                path.mkdir(parents=True, mode=_PRIVATE_FOLDER)
        found[str(mount["mountPath"]).rstrip("/") or "/"] = path
    return found


def _files(volume: Mapping[str, Any], pod: Mapping[str, Any], sources: Sources) -> Files:
    if "emptyDir" in volume or volume.keys() <= {"name"}:
        return {}
    if (projected := volume.get("projected")) is not None:
        merged: Files = {}
        for source in projected.get("sources") or []:
            merged.update(_source_files(source, pod, sources))
        return merged
    return _source_files(volume, pod, sources)


def _source_files(source: Mapping[str, Any], pod: Mapping[str, Any], sources: Sources) -> Files:
    if (ref := source.get("configMap")) is not None:
        name = ref["name"]
        texts = sources.config_map(name)
        found = None if texts is None else {key: text.encode() for key, text in texts.items()}
        return _selected(f'configmap "{name}"', found, ref, _FILE)
    if (ref := source.get("secret")) is not None:
        name = ref.get("secretName") or ref["name"]
        return _selected(f'secret "{name}"', sources.secret(name), ref, _PRIVATE_FILE)
    if (ref := source.get("downwardAPI")) is not None:
        items: Iterable[Mapping[str, Any]] = ref.get("items") or []
        return {
            item["path"]: (field_value(item["fieldRef"]["fieldPath"], pod).encode(), _FILE)
            for item in items
            if "fieldRef" in item
        }
    if "serviceAccountToken" in source:
        return {}  # the embedded cluster issues no such tokens; nothing of ours asks for one
    kinds = ", ".join(key for key in source if key != "name")
    raise VolumeError(f"volumes of type {kinds} are not supported by the embedded cluster")


def _selected(
    what: str, found: Mapping[str, bytes] | None, ref: Mapping[str, Any], mode: int
) -> Files:
    if found is None:
        if ref.get("optional"):
            return {}
        raise VolumeError(f"{what} not found")
    items = ref.get("items")
    if not items:
        return {key: (content, mode) for key, content in found.items()}
    files: Files = {}
    for item in items:
        if item["key"] in found:
            files[item["path"]] = (found[item["key"]], mode)
        elif not ref.get("optional"):
            raise VolumeError(f"{what} has no key {item['key']}")
    return files


def _write(folder: Path, files: Files) -> None:
    for relative, (content, mode) in files.items():
        path = inside(folder, relative)
        path.parent.mkdir(parents=True, exist_ok=True, mode=_PRIVATE_FOLDER)
        if path.is_file() and path.read_bytes() == content:
            continue  # whoever watches the file shall see news only
        # A new file of the right mode from its first byte on, then put in place.
        whole = path.with_name(f".{path.name}.new")
        whole.unlink(missing_ok=True)
        with os.fdopen(os.open(whole, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
        whole.replace(path)
