"""A template whose actions or blocks are not closed is refused, as Go refuses it."""

from __future__ import annotations

import pytest

from ostore.formats.errors import FormatError
from ostore.formats.go_template import check_template

LLAMA3 = """{{ if .System }}<|start_header_id|>system<|end_header_id|>

{{ .System }}<|eot_id|>{{ end }}{{ range $i, $_ := .Messages }}{{- if eq .Role "user" }}{{ .Content }}
{{- else if eq .Role `assistant` -}}{{ with .Content }}{{ . }}{{ end }}{{ else }}{{ break }}{{ end }}{{ end }}
{{- /* a }} comment {{ */ -}}{{ "}}" }}{{ '}' }}{{ define "x" }}{{ end }}{{ block "y" . }}{{end}}{{ ifs }}{{ .end }}"""


@pytest.mark.parametrize("text", ["", "no action }} at all", "{{ .Prompt }}", LLAMA3, "{{/* */}}", "{{\n.Prompt\n}}"])
def test_what_go_takes_is_taken(text: str) -> None:
    check_template(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{{ .Prompt", "line 1: {{ is not closed"),
        ("a\nb {{ .Prompt }", "line 2: {{ is not closed"),
        ("{{ /* }}", "is not closed"),
        ('{{ " }}', "is not closed"),
        ("{{ if .System }}", "line 1: {{ if }} has no {{ end }}"),
        ("{{ range .M }}\n{{ with .x }}{{ end }}", "line 1: {{ range }} has no {{ end }}"),
        ("{{ end }}", "{{ end }} without a block"),
        ("\n{{- else }}", "line 2: {{ else }} outside of a block"),
    ],
)
def test_what_is_not_closed_is_named_by_its_line(text: str, says: str) -> None:
    with pytest.raises(FormatError) as caught:
        check_template(text)
    assert says in str(caught.value)
