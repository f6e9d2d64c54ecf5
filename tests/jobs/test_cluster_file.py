"""ray_cluster.yaml passes the schema that Ray ships and Ray's own check."""

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture
def cluster() -> Any:
    return yaml.safe_load((ROOT / "ray_cluster.yaml").read_text())


def test_the_schema_of_the_ray_wheel_accepts_it(cluster: Any) -> None:
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    jsonschema.validate(cluster, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(cluster | {"max_worker": 1}, schema)


def test_rays_own_check_accepts_it(cluster: Any) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(copy.deepcopy(cluster)))


def test_it_has_nodes_for_crawling_and_for_embedding(cluster: Any) -> None:
    resources = [kind["resources"] for kind in cluster["available_node_types"].values()]
    assert any("GPU" not in r and r["CPU"] > 0 for r in resources)
    assert any(r.get("GPU", 0) > 0 for r in resources)


def test_its_image_is_of_the_pinned_ray_and_python(cluster: Any) -> None:
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    (version,) = [pin.removeprefix("ray==") for pin in pins if pin.startswith("ray==")]
    assert f":{version}-py311" in cluster["docker"]["image"]
