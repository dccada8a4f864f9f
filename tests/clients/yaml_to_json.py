"""Prints the documents of YAML files as one JSON list, so that the tests can read them.

    yaml_to_json.py [--schema SCHEMA] FILE...

With --schema each document is held against it first; one with a kind, as Kubernetes has them, against the
definition of that name. What does not fit is said on stderr, and the exit code is 1. PyYAML and jsonschema are
of openapi-spec-validator's own.
"""

import argparse
import json
import sys

import jsonschema
import yaml


def problems(document, schema):
    """What is wrong with a document, one line each."""
    kind = document.get("kind")
    if kind is not None and "properties" not in schema:
        definitions = schema["$defs"]
        if kind not in definitions:
            return [f"{kind}: no schema of this kind"]
        schema = {**definitions[kind], "$defs": definitions}
    found = jsonschema.Draft7Validator(schema).iter_errors(document)
    return [f"{kind or ''} {error.json_path}: {error.message}" for error in found]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--schema")
    parser.add_argument("files", nargs="+")
    arguments = parser.parse_args()
    schema = json.load(open(arguments.schema)) if arguments.schema else None
    documents, wrong = [], []
    for name in arguments.files:
        for document in yaml.safe_load_all(open(name)):
            documents.append(document)
            if schema is not None:
                wrong.extend(f"{name}: {problem}" for problem in problems(document, schema))
    print("\n".join(wrong), file=sys.stderr)
    print(json.dumps(documents))
    return 1 if wrong else 0


sys.exit(main())
