package overlay_test

import (
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/overlay"
)

const document = `
openapi: 3.1.0
info: {title: Somebody else's, version: "1"}
paths:
  /things:
    get: {operationId: list, responses: {"204": {description: Done.}}}
    post: {operationId: add, security: [{key: []}], responses: {"204": {description: Done.}}}
  /admin:
    get: {operationId: admin, responses: {"204": {description: Done.}}}
components:
  securitySchemes:
    key: {type: apiKey, in: header, name: X-Key}
`

const guard = `
overlay: 1.0.0
info: {title: Guard, version: "1"}
actions:
  - target: $.components.securitySchemes
    update: {token: {type: http, scheme: bearer}}
  - target: $
    update: {security: [{token: [read]}]}
  - target: $.paths['/things'].post.security
    remove: true
  - target: $.paths['/things'].post
    update: {security: [{token: [write]}]}
  - target: $.paths['/admin']
    remove: true
`

func TestApply(t *testing.T) {
	text, err := overlay.Apply([]byte(document), []byte(guard))
	if err != nil {
		t.Fatal(err)
	}
	doc, err := openapi3.NewLoader().LoadFromData(text)
	if err != nil {
		t.Fatal(err)
	}
	original, err := openapi3.NewLoader().LoadFromData([]byte(document))
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := overlay.ApplyTo(original, []byte(guard))
	if err != nil {
		t.Fatal(err)
	}
	for _, doc := range []*openapi3.T{doc, loaded} {
		checkPlan(t, doc)
	}
	if original.Paths.Find("/admin") == nil {
		t.Error("ApplyTo changes the document that it is given")
	}
	if same, err := overlay.Apply([]byte(document)); err != nil || string(same) != document {
		t.Errorf("without an overlay the document changes: %v", err)
	}
}

func checkPlan(t *testing.T, doc *openapi3.T) {
	t.Helper()
	plan, err := authz.Compile(doc)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, o := range plan.Operations() {
		got = append(got, o.ID+" "+o.Alternatives[0][0].Scheme+" "+
			strings.Join(o.Alternatives[0][0].Scopes, " "))
		if len(o.Alternatives) != 1 {
			t.Errorf("%s has %d alternatives, want only those of the overlay", o.ID,
				len(o.Alternatives))
		}
	}
	if s := strings.Join(got, ", "); s != "list token read, add token write" {
		t.Errorf("the plan is %q", s)
	}
}

func TestFaults(t *testing.T) {
	action := func(text string) string {
		return "overlay: 1.0.0\ninfo: {title: t, version: v}\nactions:\n  - " + text + "\n"
	}
	for name, text := range map[string]string{
		"a target that selects nothing":           action("{target: \"$.paths['/thing'].post\", update: {security: [{key: []}]}}"),
		"a target to remove that selects nothing": action("{target: \"$.paths['/thing']\", remove: true}"),
		"a target that is not a path":             action("{target: \"$.paths[\", remove: true}"),
		"no action":                               "overlay: 1.0.0\ninfo: {title: t, version: v}\nactions: []\n",
		"an action that does nothing":             action("{target: $.paths, updates: {a: b}}"),
		"another version":                         strings.Replace(action("{target: $.paths, remove: true}"), "1.0.0", "2.0.0", 1),
		"no overlay":                              document,
		"no YAML":                                 "{",
		"nothing":                                 "",
	} {
		if text, err := overlay.Apply([]byte(document), []byte(guard), []byte(text)); err == nil {
			t.Errorf("%s: it is applied:\n%s", name, text)
		} else if !strings.HasPrefix(err.Error(), "overlay 2 of 2: ") {
			t.Errorf("%s: error is %v, want it to contain which overlay", name, err)
		}
	}
	for _, text := range []string{"", "{"} {
		if _, err := overlay.Apply([]byte(text), []byte(guard)); err == nil {
			t.Errorf("document %q is taken", text)
		}
	}
}
