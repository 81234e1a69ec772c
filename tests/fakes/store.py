"""The memory of the fake API server: versioned objects, their history, and the rules of writing them.

Owns what etcd and the registry of a real API server do: resourceVersions, uids, conflicts, merge patches, graceful
deletion of pods, snapshots for paging, compaction. Knows no HTTP. Objects are plain JSON trees.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias
from uuid import uuid4

import msgspec

Json: TypeAlias = dict[str, Any]
Name: TypeAlias = tuple[str, str]
"""(namespace, name); the namespace of a cluster-scoped object is empty."""


class Refusal(Exception):
    """The Status that a request is answered with."""

    def __init__(self, code: int, reason: str, message: str, *, cause: str | None = None, field: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.cause = cause
        self.field = field

    def status(self) -> Json:
        """The object as it goes over the wire."""
        cause = {"reason": self.cause, "message": str(self), "field": self.field}
        details = {"details": {"causes": [cause]}} if self.cause else {}
        failure = {"status": "Failure", "message": str(self), "reason": self.reason, "code": self.code}
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, **failure, **details}


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """A kind of object. ``group`` is empty for the core group."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    unconditional_update: bool = True

    @property
    def api_version(self) -> str:
        """As in an object's ``apiVersion``."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def path(self) -> str:
        """Of the collection over all namespaces."""
        return (
            f"/apis/{self.group}/{self.version}/{self.plural}" if self.group else f"/api/{self.version}/{self.plural}"
        )


NAMESPACES = Resource(group="", version="v1", plural="namespaces", kind="Namespace", namespaced=False)
NODES = Resource(group="", version="v1", plural="nodes", kind="Node", namespaced=False)
PODS = Resource(group="", version="v1", plural="pods", kind="Pod")
CONFIG_MAPS = Resource(group="", version="v1", plural="configmaps", kind="ConfigMap")
LEASES = Resource(group="coordination.k8s.io", version="v1", plural="leases", kind="Lease", unconditional_update=False)
NODE_CLAIMS = Resource(group="karpenter.sh", version="v1", plural="nodeclaims", kind="NodeClaim", namespaced=False)
NODE_POOLS = Resource(group="karpenter.sh", version="v1", plural="nodepools", kind="NodePool", namespaced=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One version of an object. ``raw`` is its JSON."""

    version: int
    tree: Json
    raw: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One entry of the history. ``before`` is None for a creation, ``after`` is the last version for a deletion."""

    resource: Resource
    name: Name
    before: Stored | None
    after: Stored
    deleted: bool


class Store:
    """All objects. Every write goes to `listeners` after it is done. ``now`` makes the creation times."""

    def __init__(self, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.version = 1
        self.compacted = 0
        self.history: list[Change] = []
        self.listeners: list[Callable[[Change], None]] = []
        self._objects: dict[Resource, dict[Name, Stored]] = {}
        self._now = now

    def enable(self, resource: Resource) -> None:
        """Make a kind known, as a CustomResourceDefinition does."""
        self._objects.setdefault(resource, {})

    def resource(self, api_version: str, plural: str) -> Resource:
        """The kind at a place in the URL. Raises a 404 without an object, as the API server answers unknown paths."""
        for known in self._objects:
            if known.api_version == api_version and known.plural == plural:
                return known
        raise Refusal(404, "NotFound", "the server could not find the requested resource")

    def select(self, resource: Resource, namespace: str) -> Iterator[Stored]:
        """The objects of a kind in etcd's order; an empty ``namespace`` means all."""
        objects = self._objects[resource]
        return (objects[name] for name in sorted(objects) if not namespace or name[0] == namespace)

    def select_as_of(self, resource: Resource, namespace: str, version: int) -> Iterator[Stored]:
        """The same as they were at a version. Raises 410 where that is forgotten."""
        objects = dict(self._objects[resource])
        for change in reversed(self.since(version)):
            if change.resource == resource:
                objects.pop(change.name, None)
                if change.before is not None:
                    objects[change.name] = change.before
        return (objects[name] for name in sorted(objects) if not namespace or name[0] == namespace)

    def get(self, resource: Resource, name: Name) -> Stored:
        """One object. Raises 404."""
        found = self._objects[resource].get(name)
        if found is None:
            raise Refusal(404, "NotFound", f'{resource.plural} "{name[1]}" not found')
        return found

    def create(self, resource: Resource, namespace: str, tree: Json) -> Stored:
        """A new object. Raises 409 where the name is taken, 404 where the namespace does not exist."""
        meta = dict(tree.get("metadata") or {})
        if not meta.get("name") and meta.get("generateName"):
            meta["name"] = f"{meta['generateName']}{uuid4().hex[:5]}"
        if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", meta.get("name", "")):
            raise Refusal(422, "Invalid", f"{resource.kind} {meta.get('name')!r} is invalid: metadata.name")
        if resource.namespaced:
            meta["namespace"] = namespace
            if ("", namespace) not in self._objects[NAMESPACES]:
                raise Refusal(404, "NotFound", f'namespaces "{namespace}" not found')
        name = (namespace, meta["name"])
        if name in self._objects[resource]:
            raise Refusal(409, "AlreadyExists", f'{resource.plural} "{name[1]}" already exists')
        if meta.pop("resourceVersion", ""):
            raise Refusal(500, "InternalError", "resourceVersion should not be set on objects to be created")
        born = self._now().strftime("%Y-%m-%dT%H:%M:%SZ")
        meta |= {"uid": meta.get("uid") or str(uuid4()), "creationTimestamp": meta.get("creationTimestamp") or born}
        return self._write(resource, name, None, {**tree, "metadata": meta})

    def replace(self, resource: Resource, name: Name, tree: Json) -> Stored:
        """A whole new version. Raises 409 where its resourceVersion or uid is not the stored one's."""
        before = self.get(resource, name)
        meta = dict(tree.get("metadata") or {})
        if not meta.get("resourceVersion") and not resource.unconditional_update:
            raise Refusal(422, "Invalid", "metadata.resourceVersion: must be specified for an update")
        self._check(resource, before, meta)
        kept = ("namespace", "name", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds")
        meta |= {key: before.tree["metadata"][key] for key in kept if key in before.tree["metadata"]}
        return self._write(resource, name, before, {**tree, "metadata": meta})

    def patch(self, resource: Resource, name: Name, patch: Json) -> Stored:
        """A merge patch, or a strategic one of maps, which does the same.

        A resourceVersion in it is a precondition (409); a uid is an immutable field (422).
        """
        before = self.get(resource, name)
        wanted = patch.get("metadata") or {}
        self._check(resource, before, {"resourceVersion": wanted.get("resourceVersion")})
        if wanted.get("uid", before.tree["metadata"]["uid"]) != before.tree["metadata"]["uid"]:
            message = f'{resource.kind} "{name[1]}" is invalid: metadata.uid: field is immutable'
            raise Refusal(422, "Invalid", message, cause="FieldValueInvalid", field="metadata.uid")
        return self._write(resource, name, before, _merged(before.tree, patch))

    def delete(self, resource: Resource, name: Name, preconditions: Json, *, grace: int | None = None) -> Stored:
        """Remove an object; a pod on a node only gets its deletionTimestamp, and `remove` is the kubelet's part."""
        before = self.get(resource, name)
        self._check(resource, before, preconditions)
        if resource == PODS and before.tree.get("spec", {}).get("nodeName") and grace != 0:
            mark = {"deletionTimestamp": self._now().strftime("%Y-%m-%dT%H:%M:%SZ"), "deletionGracePeriodSeconds": 30}
            return self._write(resource, name, before, _merged(before.tree, {"metadata": mark}))
        return self.remove(resource, name)

    def remove(self, resource: Resource, name: Name) -> Stored:
        """Take an object away at once. Its last version has a resourceVersion of its own."""
        return self._write(resource, name, before := self.get(resource, name), before.tree, deleted=True)

    def since(self, version: int) -> list[Change]:
        """What happened after ``version``. Raises 410 where that is forgotten."""
        if version < self.compacted:
            raise Refusal(410, "Expired", f"too old resource version: {version} ({self.version})")
        return [change for change in self.history if change.after.version > version]

    def compact(self) -> None:
        """Forget all history, as etcd does every five minutes, and move on by one version."""
        self.version += 1
        self.compacted = self.version
        self.history.clear()

    def _check(self, resource: Resource, stored: Stored, wanted: Json) -> None:
        for key in ("uid", "resourceVersion"):
            value, actual = wanted.get(key), stored.tree["metadata"][key]
            if value and value != actual:
                name = stored.tree["metadata"]["name"]
                raise Refusal(
                    409,
                    "Conflict",
                    f'Operation cannot be fulfilled on {resource.plural} "{name}": the {key} in the precondition'
                    f" ({value}) does not match the {key} in record ({actual})",
                )

    def _write(
        self, resource: Resource, name: Name, before: Stored | None, tree: Json, *, deleted: bool = False
    ) -> Stored:
        meta = {**tree["metadata"], "resourceVersion": str(self.version + 1)}
        tree = {**tree, "kind": resource.kind, "apiVersion": resource.api_version, "metadata": meta}
        if before is not None and not deleted:
            same = {**tree, "metadata": {**meta, "resourceVersion": before.tree["metadata"]["resourceVersion"]}}
            if same == before.tree:  # a write that changes nothing is none
                return before
        self.version += 1
        after = Stored(version=self.version, tree=tree, raw=msgspec.json.encode(tree))
        if deleted:
            del self._objects[resource][name]
        else:
            self._objects[resource][name] = after
        change = Change(resource=resource, name=name, before=before, after=after, deleted=deleted)
        self.history.append(change)
        for listener in list(self.listeners):
            listener(change)
        return after


def _merged(target: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merged(result.get(key), value)
    return result
