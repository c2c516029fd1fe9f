"""Provenance: stable hashes, and a record that survives being written."""

import json

from persona_probe.provenance import Provenance, content_hash


def test_hash_ignores_key_order_and_sees_values() -> None:
    assert content_hash({"a": 1, "b": 2}) == content_hash({"b": 2, "a": 1})
    assert content_hash({"a": 1}) != content_hash({"a": 2})
    assert content_hash(["a", "b"]) != content_hash(["b", "a"])


def test_record_survives_json_and_tolerates_fields_of_later_versions() -> None:
    record = Provenance(model="m", seed=3, positions="last_prompt_token")
    written = json.loads(json.dumps(record.to_json())) | {"field_of_the_future": 1}
    assert Provenance.from_json(written) == record
    assert "torch" in record.versions
