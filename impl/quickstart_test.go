package impl

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/oasgate/oasgate/authz/server"
	"github.com/oasgate/oasgate/gen"
	"github.com/oasgate/oasgate/gen/apiclient"
)

// The tests here are of the quickstart's own operations, and go with them.

// spoilt answers like Handlers, except for what a test replaces.
type spoilt struct {
	Handlers
	public func(context.Context) (gen.GetPublicResponseObject, error)
}

func (s spoilt) GetPublic(
	ctx context.Context, _ gen.GetPublicRequestObject,
) (gen.GetPublicResponseObject, error) {
	return s.public(ctx)
}

// TestAnswersAreTheDocuments compares each example of the document with the response of the server.
func TestAnswersAreTheDocuments(t *testing.T) {
	document, err := gen.GetSpec()
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, nil)
	full := "Bearer " + r.issuer.Mint(map[string]any{"scope": "read:messages"})

	for path, item := range document.Paths.Map() {
		if item.Get == nil ||
			item.Get.Responses.Value("200").Value.Content["application/json"].Example == nil {
			continue // the answer is not always the same
		}
		got := r.ask(t, http.MethodGet, path, "Authorization", full)
		want, _ := json.Marshal(
			item.Get.Responses.Value("200").Value.Content["application/json"].Example)
		if got.status != http.StatusOK || strings.TrimSpace(got.body) != string(want) {
			t.Errorf("GET %s answers %d %s, the document's example is %s", path, got.status,
				got.body, want)
		}
	}

	example := func(response, name string) string {
		media := document.Components.Responses[response].Value.Content["application/problem+json"]
		if media.Examples[name] == nil {
			t.Fatalf("the document's response %s has no example %s", response, name)
		}
		return canonical(t, media.Examples[name].Value.Value)
	}
	challenges := document.Components.Headers["WWWAuthenticate"].Value.Examples
	gone := start(t, nil)
	gone.issuer.Stop()
	outage := start(t, func(c *server.Config) { c.Issuers[0].URL = gone.issuer.URL() })
	for _, test := range []struct {
		response, example string
		server            *running
		authorization     string
		status            int
		challenge         any
	}{
		{"InvalidRequest", "invalidRequest", r, "Bearer a b", 400, document.Components.Responses["InvalidRequest"].Value.Headers["WWW-Authenticate"].Value.Example},
		{"Unauthorized", "noToken", r, "", 401, challenges["noToken"].Value.Value},
		{"Unauthorized", "invalidToken", r, "Bearer x", 401, challenges["invalidToken"].Value.Value},
		{"Forbidden", "insufficientScope", r, "Bearer " + r.issuer.Mint(nil), 403, challenges["insufficientScope"].Value.Value},
		{"KeysUnavailable", "keysUnavailable", outage, "Bearer " + gone.issuer.Mint(nil), 503, ""},
	} {
		t.Run(test.example, func(t *testing.T) {
			got := test.server.ask(t, http.MethodGet, "/api/private-scoped", "Authorization",
				test.authorization)
			wantProblem(t, got, test.status)
			if want := example(test.response, test.example); canonical(t,
				json.RawMessage(got.body)) != want {
				t.Errorf("the problem is\n  %s\nthe document's example\n  %s",
					canonical(t, json.RawMessage(got.body)), want)
			}
			if challenge := got.header.Get("WWW-Authenticate"); challenge != test.challenge {
				t.Errorf("the challenge is %q, the document's example %q", challenge,
					test.challenge)
			}
			for name, header := range document.Components.Responses[test.response].Value.Headers {
				if header.Value.Required && got.header.Get(name) == "" {
					t.Errorf("no %s, which the document declares", name)
				}
			}
		})
	}
}

// canonical writes JSON so that equal values are equal text.
func canonical(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var plain any
	if err := json.Unmarshal(text, &plain); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	text, _ = json.Marshal(plain)
	return string(text)
}

func TestHandlerThatAnswersNothing(t *testing.T) {
	r := start(
		t,
		withHandlers(
			spoilt{
				public: func(context.Context) (gen.GetPublicResponseObject, error) {
					return nil, nil
				},
			},
		),
	)
	wantProblem(t, r.ask(t, "GET", "/api/public", "X-Request-Id", "nothing"),
		http.StatusInternalServerError)
	if cause := r.log.request(t, "nothing")["cause"]; cause != "the handler of getPublic "+
		"returned neither a response nor an error" {
		t.Errorf("cause is %v", cause)
	}
}

// The generated client works with the server.
func TestGeneratedClient(t *testing.T) {
	r := start(t, nil)
	client, err := apiclient.NewClientWithResponses(r.url)
	if err != nil {
		t.Fatal(err)
	}
	got, err := client.GetPrivateScopedWithResponse(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got.ApplicationproblemJSON401 == nil ||
		got.ApplicationproblemJSON401.Status != http.StatusUnauthorized {
		t.Errorf("the client has no type for %d %s", got.StatusCode(), got.Body)
	}
}

// complaints counts what a test would have failed with.
type complaints struct {
	*testing.T
	n int
}

func (c *complaints) Errorf(string, ...any) { c.n++ }

// The comparison of responses with the document must be able to fail.
func TestWrongAnswersAreSeen(t *testing.T) {
	const message = `{"id":"019ad7c8-09b3-7204-bf92-a8cef806518f","text":"x","author":{"issuer":"i","subject":"s"},"created":"2026-12-01T09:30:00.435Z"}`
	tests := []struct {
		name   string
		status int
		header string // of ETag
		body   string
		wrong  bool
	}{
		{"right", 200, `"1"`, message, false},
		{"a header is missing", 200, "", message, true},
		{"a header is malformed", 200, "W/1", message, true},
		{"a member is missing", 200, `"1"`, strings.Replace(message, `"text":"x",`, "", 1), true},
		{"a member too many", 200, `"1"`, strings.Replace(message, `{`, `{"extra":1,`, 1), true},
		{
			"a pattern is not matched",
			200,
			`"1"`,
			strings.Replace(message, "-7204", "-4204", 1),
			true,
		},
		{
			"a text is too long",
			200,
			`"1"`,
			strings.Replace(message, `"x"`, `"`+strings.Repeat("x", 1001)+`"`, 1),
			true,
		},
		{"no body", 200, `"1"`, "", true},
		{"a problem without a type", 404, "", `{"title":"t","status":404}`, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := &complaints{T: t}
			handler := asDocumented(
				c,
				http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					w.Header().Set("Content-Type", "application/json")
					if test.status != 200 {
						w.Header().Set("Content-Type", "application/problem+json")
					}
					if test.header != "" {
						w.Header().Set("ETag", test.header)
					}
					w.WriteHeader(test.status)
					_, _ = io.WriteString(w, test.body)
				}),
			)
			handler.ServeHTTP(
				httptest.NewRecorder(),
				httptest.NewRequest("GET", "/api/messages/019ad7c8-09b3-7204-bf92-a8cef806518f",
					nil),
			)
			if (c.n > 0) != test.wrong {
				t.Errorf("asDocumented complained %d times", c.n)
			}
		})
	}
}
