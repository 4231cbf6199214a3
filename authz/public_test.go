package authz_test

import (
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/authztest"
	"github.com/oasgate/oasgate/authz/overlay"
)

// TestPublicDocuments guards each document in the folder OASGATE_TEST_DOCUMENTS, unchanged, and
// with the overlay in testdata/public if there is one. The kit runs against a stub server, whose
// handlers the requests that it generates must reach.
func TestPublicDocuments(t *testing.T) {
	folder := os.Getenv("OASGATE_TEST_DOCUMENTS")
	if folder == "" {
		t.Skip(
			"OASGATE_TEST_DOCUMENTS is not set: expected a folder of OpenAPI documents; .ci/full fetches some",
		)
	}
	files, err := filepath.Glob(filepath.Join(folder, "*.*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("OASGATE_TEST_DOCUMENTS is %q: want a folder with documents (%v)", folder, err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), filepath.Ext(file))
		t.Run(name, func(t *testing.T) {
			t.Run("published", func(t *testing.T) {
				guardPublic(t, loadPublic(t, file), false)
			})
			if laid := filepath.Join("testdata/public", name+".overlay.yaml"); exists(laid) {
				t.Run("overlaid", func(t *testing.T) {
					guardPublic(t, loadPublic(t, file, laid), true)
				})
			}
		})
	}
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

// guardPublic guards a document and runs the kit. stated: all operations state their security.
func guardPublic(t *testing.T, doc *openapi3.T, stated bool) {
	issuer, secrets := newIssuer(t), authztest.NewSecrets(doc)
	gate, err := authz.New(authz.Config{
		Document: doc, Unstated: authz.DenyUnstated, Undecoded: authz.DenyUndecoded,
		Verifier: newVerifier(t, issuer), Authenticators: secrets.Authenticators(),
	})
	if err != nil {
		t.Fatal(err)
	}

	calls := 0
	reached := map[string]bool{}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls++
		if a, ok := authz.FromContext(r.Context()); ok {
			reached[a.Operation.ID] = true
		}
		w.WriteHeader(http.StatusNoContent)
	})
	report, err := authztest.Check(t.Context(), authztest.Target{
		Document: doc, Unstated: authz.DenyUnstated,
		Handler: newTemplateRouter(t, gate, handler),
		Tokens:  authztest.Issued(issuer.Issuer), Credentials: secrets.Credentials(),
		Calls: func() int { return calls }, IgnoreResponses: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	operations, callable := gate.Plan().Operations(), 0
	for _, o := range operations {
		if o.Denied == "" {
			callable++
		}
	}
	failed := report.Failed()
	for _, result := range failed[:min(len(failed), 10)] {
		t.Errorf("%s: %s %s %s", result.Case.Name, strings.Join(result.Faults, "; "), result.Detail,
			result.Curl)
	}
	t.Logf("%d operations, requests reach the handlers of %d; %d cases, %d failed",
		len(operations), len(reached), len(report.Results), len(failed))
	if len(reached)*10 < callable*9 || stated && callable < len(operations) {
		t.Errorf("%d of %d operations may be called, and requests reach %d handlers: want most",
			callable, len(operations), len(reached))
	}
}

// loadPublic loads a document with overlays applied.
func loadPublic(t *testing.T, file string, overlays ...string) *openapi3.T {
	t.Helper()
	document, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var texts [][]byte
	for _, name := range overlays {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, text)
	}
	if document, err = overlay.Apply(document, texts...); err != nil {
		t.Fatal(err)
	}
	loader := openapi3.NewLoader()
	loader.IsExternalRefsAllowed = true
	doc, err := loader.LoadFromDataWithPath(document, &url.URL{Path: filepath.ToSlash(file)})
	if err != nil {
		t.Fatal(err)
	}
	return doc
}
