package authz_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/labstack/echo/v4"
	"github.com/labstack/echo/v4/middleware"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/echov4"
	"github.com/oasgate/oasgate/authz/token"
)

// TestEveryKindIsExplained checks that PROBLEMS.md has a section for each problem type, which
// begins with the status.
func TestEveryKindIsExplained(t *testing.T) {
	text, err := os.ReadFile("PROBLEMS.md")
	if err != nil {
		t.Fatal(err)
	}
	sections := map[authz.Kind]int{}
	for _, m := range regexp.MustCompile(
		`(?m)^## (\S+)\n\nStatus (\d{3})[.,] `).FindAllStringSubmatch(
		string(text), -1) {
		sections[authz.Kind(m[1])], _ = strconv.Atoi(m[2])
	}
	for _, kind := range authz.Kinds() {
		if kind == authz.Other {
			continue // it has no type URI
		}
		status := (&authz.Error{Kind: kind}).Status()
		if sections[kind] != status || http.StatusText(status) == "" {
			t.Errorf("kind %s: its section in PROBLEMS.md says status %d, want %d (0: there "+
				"is no section)", kind, sections[kind], status)
		}
		delete(sections, kind)
	}
	if len(sections) > 0 {
		t.Errorf("PROBLEMS.md has sections for kinds that do not exist: %v", sections)
	}
	if !strings.HasSuffix(authz.ProblemTypes, "authz/PROBLEMS.md#") {
		t.Errorf("problem types begin with %s, which is not where their sections are",
			authz.ProblemTypes)
	}
}

// TestErrors: each error of a handler becomes a problem document without the text of the error.
func TestErrors(t *testing.T) {
	secret := errors.New("dial tcp 10.0.0.7: " + submitted)
	s := start(t, guarded, nil,
		middleware.RecoverWithConfig(middleware.RecoverConfig{DisablePrintStack: true}))
	for _, row := range []struct {
		name      string
		err       error
		status    int
		kind      authz.Kind
		challenge string
	}{
		{"plain", secret, 500, authz.Internal, ""},
		{"joined", errors.Join(secret, io.ErrUnexpectedEOF), 500, authz.Internal, ""},
		{"of the token package", &token.Error{Code: token.Expired, Detail: submitted}, 500, authz.Internal, ""},

		{"echo's 400", echo.NewHTTPError(400, ""), 400, authz.Other, ""},
		{"echo's 401", echo.NewHTTPError(401, ""), 401, authz.MissingToken, challenge},
		{"echo's 403", echo.NewHTTPError(403, ""), 403, authz.Other, ""},
		{"echo's 404", echo.NewHTTPError(404, ""), 404, authz.NotFound, ""},
		{"echo's 405", echo.NewHTTPError(405, ""), 405, authz.MethodNotAllowed, ""},
		{"echo's 409", echo.NewHTTPError(409, ""), 409, authz.Other, ""},
		{"echo's 413", echo.NewHTTPError(413, ""), 413, authz.BodyTooLarge, ""},
		{"echo's 415", echo.NewHTTPError(415, ""), 415, authz.UnsupportedMediaType, ""},
		{"echo's 418", echo.NewHTTPError(418, ""), 418, authz.Other, ""},
		{"echo's 429", echo.NewHTTPError(429, ""), 429, authz.Other, ""},
		{"a status without a name", echo.NewHTTPError(499, ""), 499, authz.Other, ""},
		{"echo's 500", echo.NewHTTPError(500, submitted), 500, authz.Internal, ""},
		{"echo's 502", echo.NewHTTPError(502, submitted), 502, authz.Other, ""},
		{"echo's 503", echo.NewHTTPError(503, submitted), 503, authz.Other, ""},
		{"echo's 599", echo.NewHTTPError(599, submitted), 599, authz.Other, ""},
		{"echo's with a cause", echo.NewHTTPError(400, secret.Error()).SetInternal(secret), 400, authz.InvalidBody, ""},
		{"echo's with a body", echo.NewHTTPError(400, map[string]string{"message": submitted}), 400, authz.Other, ""},
		{"echo's, wrapped", fmt.Errorf("%s: %w", submitted, echo.ErrNotFound), 404, authz.NotFound, ""},
		{"echo's 200", echo.NewHTTPError(200, submitted), 500, authz.Internal, ""},
		{"echo's 302", echo.NewHTTPError(302, submitted), 500, authz.Internal, ""},
		{"echo's 600", echo.NewHTTPError(600, submitted), 500, authz.Internal, ""},
		{"echo's without a status", &echo.HTTPError{Message: submitted}, 500, authz.Internal, ""},

		{"too much of a body", &http.MaxBytesError{Limit: 5}, 413, authz.BodyTooLarge, ""},
		{"too much of a body, by echo's binder", echo.NewHTTPError(400, submitted).SetInternal(&http.MaxBytesError{Limit: 5}), 413, authz.BodyTooLarge, ""},
		{"an optional multipart body that was not sent", http.ErrNotMultipart, 400, authz.InvalidBody, ""},
		{"out of time", context.DeadlineExceeded, 503, authz.Timeout, ""},
		{"out of time, wrapped", fmt.Errorf("%s: %w", submitted, context.DeadlineExceeded), 503, authz.Timeout, ""},
		{"out of time, by echo's middleware",
			middleware.ContextTimeoutWithConfig(middleware.ContextTimeoutConfig{
				Timeout: time.Nanosecond})(func(c echo.Context) error {
				<-c.Request().Context().Done()
				return c.Request().Context().Err()
			})(echo.New().NewContext(httptest.NewRequest("GET", "/", nil), httptest.NewRecorder())),
			503, authz.Timeout, ""},
		{"canceled", fmt.Errorf("%s: %w", submitted, context.Canceled), 503, authz.Timeout, ""},

		{"the gate's own", &authz.Error{Kind: authz.InvalidBody, Err: secret}, 400, authz.InvalidBody, ""},
		{"the gate's own, wrapped", fmt.Errorf("%s: %w", submitted, &authz.Error{Kind: authz.NotFound}), 404, authz.NotFound, ""},
		{"the gate's own, without a RetryAfter", &authz.Error{Kind: authz.Timeout}, 503, authz.Timeout, ""},
		{"the gate's own, of no kind", &authz.Error{Detail: submitted}, 500, authz.Internal, ""},
		{"the gate's own, of an unknown kind", &authz.Error{Kind: "unknown", Detail: submitted}, 500, authz.Internal, ""},
		{"the gate's own, without a status", &authz.Error{Kind: authz.Other, Detail: submitted}, 500, authz.Internal, ""},
		{"a handler's refusal", &authz.Error{Kind: authz.InsufficientScope, Scopes: []string{"read", "write"}}, 403, authz.InsufficientScope, fmt.Sprintf(lacksScopes, "read write")},
		{"a handler's refusal, with anything for scopes", &authz.Error{Kind: authz.InsufficientScope, Scopes: []string{`a", error="x`, "read", "b c", ""}}, 403, authz.InsufficientScope, fmt.Sprintf(lacksScopes, "read")},
		{"a handler's refusal, with no scopes", &authz.Error{Kind: authz.InsufficientScope, Scopes: []string{`"`}}, 403, authz.InsufficientScope, challenge + `, error="insufficient_scope"`},
	} {
		t.Run(row.name, func(t *testing.T) {
			s.answering(func(c echo.Context) error {
				c.Response().Header().Set("Content-Length", "7") // of the answer that is not to be
				return row.err
			})
			a := s.send(t, "GET /public", "")
			if a.ran == nil {
				t.Fatal("the handler did not run")
			}
			a.problem(t, row.status, row.kind, row.challenge)
		})
	}
	for name, value := range map[string]any{"a text": submitted, "an error": secret,
		"a runtime error": func() (err any) {
			defer func() { err = recover() }()
			var none []int
			return none[len(submitted)]
		}()} {
		t.Run("panic with "+name, func(t *testing.T) {
			s.answering(func(echo.Context) error { panic(value) })
			s.send(t, "GET /public", "").problem(t, 500, authz.Internal, "")
		})
	}
	for _, status := range []int{400, 401, 403, 404, 405, 409, 413, 415, 418, 429, 499} {
		t.Run(fmt.Sprintf("the message of echo's %d is the handler's word to the client", status),
			func(t *testing.T) {
				s.answering(func(echo.Context) error {
					return echo.NewHTTPError(status, "There is no message 7.").SetInternal(secret)
				})
				if a := s.send(t, "GET /public", ""); a.StatusCode != status ||
					!strings.Contains(string(a.body), "There is no message 7.") ||
					strings.Contains(string(a.body), submitted) {
					t.Errorf("status %d, body %s: want %d, and the message alone", a.StatusCode,
						a.body, status)
				}
			})
	}
	t.Run("a detail is the handler's word to the client", func(t *testing.T) {
		s.answering(func(echo.Context) error {
			return &authz.Error{Kind: authz.NotFound, Detail: "There is no message 7.", Err: secret}
		})
		if detail := s.send(t, "GET /public", "").problem(t, 404, authz.NotFound,
			""); detail != "There is no message 7." {
			t.Errorf("the detail is %q, want the handler's", detail)
		}
	})
	t.Run("an answer that has begun", func(t *testing.T) {
		s.answering(func(c echo.Context) error {
			_ = c.String(http.StatusOK, "begun")
			return secret
		})
		if a := s.send(t, "GET /public", ""); a.StatusCode != 200 || string(a.body) != "begun" ||
			a.Header.Get("Content-Type") != echo.MIMETextPlainCharsetUTF8 {
			t.Errorf("status %d, body %q: want the answer as the handler began it",
				a.StatusCode, a.body)
		}
	})
	t.Run("HEAD", func(t *testing.T) {
		s.answering(func(echo.Context) error { return secret })
		if a := s.send(t, "HEAD /declared", ""); a.StatusCode != 500 || len(a.body) != 0 ||
			a.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("status %d, body %q: want a problem's header and no body", a.StatusCode,
				a.body)
		}
	})
}

// TestExplain: the cause of a refusal is sent to clients with InsecureExplain only, and always
// logged.
func TestExplain(t *testing.T) {
	for _, explain := range []bool{false, true} {
		s := start(t, guarded, func(c *authz.Config) { c.InsecureExplain = explain })
		var logged error
		s.echo.HTTPErrorHandler = func(err error, c echo.Context) {
			logged = err
			echov4.ErrorHandler(s.gate)(err, c)
		}
		for claim, says := range map[string]map[string]any{
			"expected \"" + audience + `"`: {"aud": "https://elsewhere.example/"},
			"trailing slash":               {"iss": strings.TrimSuffix(s.issuer.URL(), "/")},
			" ago":                         {"exp": time.Now().Add(-time.Hour).Unix()},
		} {
			minted := s.issuer.Mint(says)
			a := s.send(t, "GET /any", "", "Authorization: Bearer "+minted)
			if got := strings.Contains(strings.ReplaceAll(string(a.body), `\"`, `"`),
				claim); got != explain {
				t.Errorf("InsecureExplain %v: the body says %q: %v\n%s", explain, claim, got,
					a.body)
			}
			if a.StatusCode != 401 || a.Header.Get("WWW-Authenticate") != notValid {
				t.Errorf("InsecureExplain %v: status %d, challenge %q: want no other than "+
					"without", explain, a.StatusCode, a.Header.Get("WWW-Authenticate"))
			}
			if logged == nil || !strings.Contains(logged.Error(), claim) {
				t.Errorf("the error for the log does not say %q: %v", claim, logged)
			}
			for _, part := range strings.Split(minted, ".") {
				if strings.Contains(string(a.body)+logged.Error(), part) {
					t.Errorf("a part of the token is in the body or in the error for the log: "+
						"%s\n%v", a.body, logged)
				}
			}
		}
		if detail := s.send(t, "GET /any", "").refused(t, 401, authz.MissingToken,
			challenge); strings.Contains(detail, "Why") {
			t.Errorf("without a token there is nothing to explain: %q", detail)
		}
	}
}

func TestProblemTypeBase(t *testing.T) {
	config := authz.Config{Document: load(t, guarded), Verifier: principals{}, ProblemTypeBase: "https://orders.example/problems/"}
	gate, err := authz.New(config)
	if err != nil {
		t.Fatal(err)
	}
	for _, refusal := range []error{&authz.Error{Kind: authz.NotFound},
		&authz.Error{Kind: authz.NotFound, Detail: "of its own"}} {
		w := httptest.NewRecorder()
		gate.WriteProblem(w, httptest.NewRequest("GET", "/", nil), refusal)
		if !strings.Contains(w.Body.String(), `"type":"https://orders.example/problems/not-found"`) {
			t.Errorf("the problem is %s, want a type of the configured base", w.Body)
		}
	}
	config.ProblemTypeBase = "problems/"
	if _, err := authz.New(config); err == nil ||
		!strings.Contains(err.Error(), "Config.ProblemTypeBase") {
		t.Errorf("a relative base: %v, want a fault", err)
	}
}

// TestWriteProblem tests WriteProblem without Echo, over HTTP/2, which has no Connection header
// (RFC 9113 §8.2.2).
func TestWriteProblem(t *testing.T) {
	gate, err := authz.New(authz.Config{Document: load(t, guarded), Verifier: principals{},
		Realm: "a realm of its own"})
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest("POST", "/any", strings.NewReader("body"))
	r.ProtoMajor = 2
	w := httptest.NewRecorder()
	_, err = gate.Check(r, "/any", nil)
	gate.WriteProblem(w, r, err)
	if w.Code != 401 || w.Header().Get("WWW-Authenticate") != `Bearer realm="a realm of its own"` ||
		w.Header().Values("Connection") != nil {
		t.Errorf("status %d, header %v: want 401, the configured realm and no Connection",
			w.Code, w.Header())
	}
	r.ProtoMajor = 1
	w = httptest.NewRecorder()
	gate.WriteProblem(w, r, err)
	if w.Header().Get("Connection") != "close" {
		t.Errorf("header %v: want Connection: close under HTTP/1.1", w.Header())
	}
	w = httptest.NewRecorder()
	gate.WriteProblem(w, httptest.NewRequest("HEAD", "/any", nil), err)
	if w.Code != 401 || w.Body.Len() != 0 {
		t.Errorf("status %d, body %q: want 401 and no body on HEAD", w.Code, w.Body)
	}
	w = httptest.NewRecorder()
	gate.WriteProblem(w, r, &authz.Error{Kind: authz.KeysUnavailable,
		RetryAfter: 1500 * time.Millisecond})
	if after := w.Header().Get("Retry-After"); after != "2" {
		t.Errorf("Retry-After is %q for 1.5 s, want 2", after)
	}
}

func TestRealm(t *testing.T) {
	for _, row := range []struct{ title, realm, expected string }{
		{"A title", "", "A title"}, {"A title", "mine", "mine"}, {`a "quoted" title`, "", "api"}, {"Überschrift", "", "api"}, {"line\nbreak", "", "api"}, {`back\slash`, "", "api"},
	} {
		doc := load(t, guarded)
		doc.Info.Title = row.title
		gate, err := authz.New(authz.Config{Document: doc, Verifier: principals{},
			Realm: row.realm})
		if err != nil {
			t.Fatal(err)
		}
		w := httptest.NewRecorder()
		gate.WriteProblem(w, httptest.NewRequest("GET", "/", nil),
			&authz.Error{Kind: authz.MissingToken})
		if got, expected := w.Header().Get("WWW-Authenticate"), `Bearer realm="`+row.expected+
			`"`; got != expected {
			t.Errorf("title %q, realm %q: the challenge is %s, want %s", row.title, row.realm,
				got, expected)
		}
	}
}

// scopeToken is scope-token of RFC 6749 §3.3.
var scopeToken = regexp.MustCompile(`^[\x21\x23-\x5B\x5D-\x7E]+$`)

// scopeDocument returns a document, built in Go without a loader, that declares and uses one scope.
func scopeDocument(title, scope string) *openapi3.T {
	description := "Done."
	return &openapi3.T{
		OpenAPI: "3.1.0",
		Info:    &openapi3.Info{Title: title, Version: "1"},
		Paths: openapi3.NewPaths(openapi3.WithPath("/a",
			&openapi3.PathItem{Get: &openapi3.Operation{
				OperationID: "a",
				Security:    &openapi3.SecurityRequirements{{"bearer": {scope}}},
				Responses: openapi3.NewResponses(openapi3.WithStatus(204,
					&openapi3.ResponseRef{Value: &openapi3.Response{Description: &description}})),
			}})),
		Components: &openapi3.Components{SecuritySchemes: openapi3.SecuritySchemes{
			"bearer": {Value: &openapi3.SecurityScheme{
				Type: "http", Scheme: "bearer",
				Extensions: map[string]any{"x-scopes": map[string]any{scope: "What it is for."}},
			}}}},
	}
}

// FuzzChallenge: any configuration that New accepts results in a challenge that can be parsed.
func FuzzChallenge(f *testing.F) {
	for _, seed := range [][4]string{
		{"title", "", "read", "mfa"}, {`t"`, `", error="x`, "read:messages", "phr"}, {"t", "r\r\nSet-Cookie: a=b", `a"b`, `a\`}, {"Ü", `\`, "a b", "a b"}, {"", "\x7f", "\x00", ""}, {"t", " ", "", "\u00e9"}, {"t,", "a, b=c", ",", "="},
	} {
		f.Add(seed[0], seed[1], seed[2], seed[3])
	}
	f.Fuzz(func(t *testing.T, title, realm, scope, acr string) {
		doc := scopeDocument(title, scope)
		doc.Paths.Value("/a").Get.Extensions = map[string]any{"x-acr-values": []any{acr}}
		gate, err := authz.New(authz.Config{Document: doc, Verifier: principals{}, Realm: realm})
		valid := scopeToken.MatchString(scope) && scopeToken.MatchString(acr)
		if err == nil && !valid {
			t.Fatalf("it starts with scope %q and acr %q", scope, acr)
		}
		if err != nil {
			return
		}
		for _, e := range []*authz.Error{
			{Kind: authz.MissingToken}, {Kind: authz.InvalidToken}, {Kind: authz.InvalidRequest}, {Kind: authz.InsufficientScope, Scopes: []string{scope, scope}},
			{Kind: authz.InsufficientAuth, StepUp: gate.Plan().Operations()[0].StepUp},
		} {
			w := httptest.NewRecorder()
			gate.WriteProblem(w, httptest.NewRequest("GET", "/a", nil), e)
			got, err := readChallenge(w.Header().Get("WWW-Authenticate"))
			if err != nil {
				t.Fatalf("%s: %v: %q", e.Kind, err, w.Header().Get("WWW-Authenticate"))
			}
			expected := map[string]string{"realm": realm,
				"error": strings.ReplaceAll(string(e.Kind), "-", "_")}
			switch e.Kind {
			case authz.MissingToken:
				delete(expected, "error")
			case authz.InsufficientScope:
				expected["scope"] = scope + " " + scope
			case authz.InsufficientAuth:
				expected["acr_values"] = acr
			}
			if realm == "" && (got["realm"] == title || got["realm"] == "api") {
				expected["realm"] = got["realm"]
			}
			if fmt.Sprint(got) != fmt.Sprint(expected) {
				t.Errorf("%s: the challenge reads %q, want %q", e.Kind, got, expected)
			}
		}
	})
}

// readChallenge reads one Bearer challenge strictly (RFC 9110 §11.6.1): auth-params with quoted
// strings.
func readChallenge(header string) (map[string]string, error) {
	rest, ok := strings.CutPrefix(header, "Bearer ")
	if !ok {
		return nil, errors.New("not a Bearer challenge")
	}
	params := map[string]string{}
	for rest != "" {
		name, value, ok := strings.Cut(rest, `="`)
		if !ok || !regexp.MustCompile(`^[a-z_]+$`).MatchString(name) {
			return nil, fmt.Errorf("no parameter at %q", rest)
		}
		var text strings.Builder
		closed := false
		for i := 0; i < len(value) && !closed; i++ {
			switch c := value[i]; {
			case c == '"':
				rest, closed = value[i+1:], true
			case c == '\\':
				return nil, errors.New("an escape, which clients rarely read")
			case c < ' ' || c > '~':
				return nil, fmt.Errorf("the character %q", c)
			default:
				text.WriteByte(c)
			}
		}
		if _, twice := params[name]; !closed || twice {
			return nil, fmt.Errorf("parameter %s is not closed, or there twice", name)
		}
		params[name] = text.String()
		if rest != "" {
			if rest, ok = strings.CutPrefix(rest, ", "); !ok || rest == "" {
				return nil, fmt.Errorf("no comma at %q", rest)
			}
		}
	}
	return params, nil
}

// FuzzScope: accepted scopes are exactly those of RFC 6749 §3.3.
func FuzzScope(f *testing.F) {
	for _, seed := range []string{"read", "read:messages", "", " ", "a b", "a\tb", `a"b`, `a\b`, "é", "\x7f", "!", "~", "a\x00", "https://example.com/scope/read"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, scope string) {
		_, err := authz.Compile(scopeDocument("title", scope))
		if valid := scopeToken.MatchString(scope); (err == nil) != valid {
			t.Errorf("scope %q: %v, want it to be served: %v", scope, err, valid)
		}
	})
}
