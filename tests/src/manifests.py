"""Reads and renders the manifests of deploy/, validates them, and writes the objects as JSON.

usage: manifests.py kubernetes FILE
       manifests.py chart FOLDER VALUES_JSON
       manifests.py compose FILE SCHEMA

Objects of Kubernetes are validated against its schemas, and a Compose file against SCHEMA, that of the Compose Specification. The chart is
linted and rendered by Helm's own library. An error ends the program with its text.
"""

import json
import sys

import jsonschema
import yaml

# The oldest version that the chart accepts, and the newest that the validator knows.
VERSIONS = ["1.29", "1.37"]
# Severity of what Helm's lint only recommends, such as an icon.
LINT_INFO = 1


def without_duplicates(loader, node):
    keys = [key.value for key, _ in node.value]
    twice = {key for key in keys if keys.count(key) > 1}
    if twice:
        sys.exit(f"{node.start_mark}: twice: {', '.join(sorted(twice))}")
    return loader.construct_mapping(node, deep=True)


class Loader(yaml.SafeLoader):
    """YAML as Kubernetes reads it: a key that comes twice is an error."""


Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, without_duplicates)


def validated(name, text):
    import kubernetes_validate

    objects = [item for item in yaml.load_all(text, Loader) if item]
    for item in objects:
        for version in VERSIONS:
            try:
                kubernetes_validate.validate(item, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                path = ".".join(str(part) for part in error.path)
                sys.exit(f"{name}: {item['kind']} {item['metadata']['name']}, {path}: {error.message}")
    return objects


def rendered(folder, values):
    import helm_python as helm

    result = helm.lint(folder, values, strict=True, kube_version=f"v{VERSIONS[0]}.0")
    found = [message for message in result["messages"] if message["severity"] > LINT_INFO]
    if found or result["errors"]:
        sys.exit(f"{folder}: {found} {result['errors']}")
    with helm.Chart.load(folder) as chart:
        chart.validate_schema(values)
        files = chart.render(values, name="standin", namespace="default")
    objects = []
    for name, text in sorted(files.items()):
        if name.endswith(".yaml"):
            objects += validated(name, text)
    return objects


def composed(file, schema):
    with open(file) as opened:
        # Compose files share parts by merged keys (<<), so this reader does not refuse a key that comes twice.
        content = yaml.safe_load(opened)
    with open(schema) as opened:
        schema = json.load(opened)
    try:
        jsonschema.validate(content, schema)
    except jsonschema.ValidationError as error:
        sys.exit(f"{file}, {error.json_path}: {error.message}")
    return content


def main():
    match sys.argv[1:]:
        case ["kubernetes", file]:
            with open(file) as opened:
                print(json.dumps(validated(file, opened.read())))
        case ["chart", folder, values]:
            print(json.dumps(rendered(folder, json.loads(values))))
        case ["compose", file, schema]:
            print(json.dumps(composed(file, schema)))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    try:
        main()
    except Exception as error:
        sys.exit(f"{type(error).__name__}: {error}")
