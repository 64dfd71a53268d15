"""A Bucket is a folder outside of the cluster, which goes when the Bucket is deleted.

Because there is a `finalize`, a finalizer is put on each Bucket before its folder is made. A Bucket
that is deleted stays until its folder is gone: also when this program is not running at that time,
and when a first attempt fails (it is tried again, later and later).
"""

import asyncio
import os
import shutil
from pathlib import Path

from kaos.runtime import Controller, CustomResource, Manager, Object, Request, Result, run

ROOT = Path(os.environ.get("BUCKETS", "buckets"))


class Bucket(CustomResource):
    GROUP, VERSION, KIND, PLURAL = "example.com", "v1", "Bucket", "buckets"


def folder(bucket: Object) -> Path:
    """By uid: another Bucket of the same name gets another folder."""
    return ROOT / f"{bucket.namespace}-{bucket.name}-{bucket.uid}"


class Buckets:
    def __init__(self, manager: Manager) -> None:
        self.cache = manager.cache

    async def reconcile(self, request: Request, /) -> Result | None:
        bucket = self.cache.get(Bucket, request.name, request.namespace)
        if bucket is None:
            return None
        await asyncio.to_thread(folder(bucket).mkdir, parents=True, exist_ok=True)
        return Result(requeue_after=60)  # nobody tells us when the folder is lost: look again

    async def finalize(self, obj: Object, /) -> None:
        # May be called again after a crash: what is gone already is no error.
        if folder(obj).exists():
            await asyncio.to_thread(shutil.rmtree, folder(obj))


def buckets(manager: Manager) -> Controller:
    return Controller("buckets", Buckets(manager), for_=Bucket, finalizer="example.com/folder")


if __name__ == "__main__":
    run(buckets, crds=[Bucket])
