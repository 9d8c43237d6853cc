"""Blueprints from a ConfigMap of a real cluster."""

from pathlib import Path

import pytest
import structlog.testing

from proxy.blueprints.follow import Follower, LastGood, first_catalog
from proxy.errors.blueprints import BlueprintSourceFailed
from proxy.settings.blueprints import ConfigMapSettings
from proxy.workspaces.kubernetes.configmap import ConfigMapSource
from proxy.workspaces.kubernetes.objects import CONFIG_MAP
from tests.cluster.cluster import Cluster


def config_map(kube: Cluster, **files: str) -> dict[str, object]:
    data = {f"{name}.yaml": text for name, text in files.items()} | {"notes.txt": "no blueprint"}
    metadata = {"name": "blueprints", "namespace": kube.namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


async def test_a_config_map_is_followed_and_a_broken_one_is_not(kube: Cluster, tmp_path: Path) -> None:
    source = ConfigMapSource(kube.api, ConfigMapSettings(name="blueprints"), kube.namespace)
    last_good = LastGood(tmp_path / "kept")
    with pytest.raises(BlueprintSourceFailed, match=f"ConfigMap {kube.namespace}/blueprints"):
        await first_catalog(source, last_good, {})
    await kube.api.apply(config_map(kube, base="abstract: true\nenv: {A: a}", dev="template: base"))
    catalog = await first_catalog(source, last_good, {})
    assert catalog.current().definitions["dev"].sample.env == {"A": "a"}
    assert catalog.current().revision.startswith(f"{kube.namespace}/blueprints at ")

    follower = Follower(source, catalog, last_good, 60)
    await kube.api.apply(config_map(kube, dev="env: {A: b}"))
    await follower.refresh()
    assert catalog.current().definitions["dev"].sample.env == {"A": "b"}
    assert list(catalog.current().definitions) == ["dev"]

    await kube.api.apply(config_map(kube, dev="env: {A: 1}"))
    with structlog.testing.capture_logs() as logs:
        await follower.refresh()
    assert [entry["where"] for entry in logs if "where" in entry] == ["dev.yaml:1: env.A"]
    await kube.api.delete(CONFIG_MAP, kube.namespace, "blueprints")
    await follower.refresh()
    assert catalog.current().definitions["dev"].sample.env == {"A": "b"}
    assert (await first_catalog(source, last_good, {})).current().definitions["dev"].sample.env == {"A": "b"}
