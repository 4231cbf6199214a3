package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"github.com/oasgate/oasgate/authz/devissuer"
)

// TestExplain replays testdata/explain.txtar with a real issuer, and checks that no token is
// printed.
func TestExplain(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	var issuer *devissuer.Issuer
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Date", now.Format(http.TimeFormat))
		issuer.ServeHTTP(w, r)
	}))
	defer server.Close()
	issuer, err := devissuer.New(devissuer.Config{
		URL: server.URL + "/", Audiences: []string{"https://api.example/"},
		Now:     func() time.Time { return now },
		Clients: []devissuer.Client{{ID: "api", Secret: "correct-horse"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	other, err := devissuer.New(
		devissuer.Config{
			URL:       server.URL + "/",
			Audiences: []string{"https://api.example/"},
			Now:       func() time.Time { return now },
		},
	)
	if err != nil {
		t.Fatal(err)
	}
	archive, err := txtar.ParseFile("testdata/explain.txtar")
	if err != nil {
		t.Fatal(err)
	}
	thumbprint := "" // of the certificate there
	for _, file := range archive.Files {
		if block, _ := pem.Decode(file.Data); file.Name == "client.pem" && block != nil {
			sum := sha256.Sum256(block.Bytes)
			thumbprint = base64.RawURLEncoding.EncodeToString(sum[:])
		}
	}
	seconds := func(d time.Duration) int64 { return now.Add(d).Unix() }
	tokens := map[string]string{
		"{genuine}": issuer.Mint(map[string]any{"scope": "read:messages", "sub": "somebody"}),
		"{permissions}": issuer.Mint(
			map[string]any{"scope": "openid", "permissions": []string{"read:messages"}},
		),
		"{terminal}": issuer.Mint(
			map[string]any{"scope": "read:messages", "sub": "some\x1b[2Jbody"},
		),
		"{mfa}": issuer.Mint(
			map[string]any{"acr": "mfa", "auth_time": seconds(-time.Minute)},
		),
		"{expired}": issuer.Mint(
			map[string]any{"iat": seconds(-2 * time.Hour), "exp": seconds(-time.Hour)},
		),
		"{fresh}": issuer.Mint(
			map[string]any{"iat": seconds(0), "exp": seconds(time.Hour)},
		),
		"{millis}":  issuer.Mint(map[string]any{"exp": seconds(0) * 1000}),
		"{noslash}": issuer.Mint(map[string]any{"iss": server.URL}),
		"{https}": issuer.Mint(
			map[string]any{"iss": strings.Replace(server.URL, "http:", "https:", 1) + "/"},
		),
		"{tenant}":        issuer.Mint(map[string]any{"iss": "https://another.example/"}),
		"{audience}":      issuer.Mint(map[string]any{"aud": []string{"https://another.example/"}}),
		"{audience-path}": issuer.Mint(map[string]any{"aud": "https://api.example"}),
		"{userinfo}":      issuer.Mint(map[string]any{"aud": server.URL + "/userinfo"}),
		"{id-token}": issuer.Mint(
			map[string]any{"aud": "client-1", "azp": "client-1", "email": "somebody@example.com"},
		),
		"{nonce}":       issuer.Mint(map[string]any{"aud": "client-1", "nonce": "n"}),
		"{unknown-kid}": issuer.Sign(map[string]any{"kid": "gone"}, claimsOf(t, issuer)),
		"{forged}":      other.Sign(map[string]any{"kid": kidOf(issuer)}, claimsOf(t, issuer)),
		"{hs256}":       issuer.Sign(map[string]any{"alg": "HS256"}, claimsOf(t, issuer)),
		"{bound}":       issuer.Mint(map[string]any{"cnf": map[string]any{"jkt": "x"}}),
		"{proven}":      issuer.Mint(map[string]any{"cnf": map[string]any{"jkt": thumbprint}}),
		"{certified}": issuer.Mint(
			map[string]any{"cnf": map[string]any{"x5t#S256": thumbprint}},
		),
		"{acted}": issuer.Mint(
			map[string]any{"sub": "somebody", "act": map[string]any{"sub": "their-assistant"}},
		),
		"{opaque}": "QyCXUI7BUVOZT4F5Y2OPTI2VPS4WMJDH",
		"{jwe}":    "eyJlbmMiOiJBMjU2R0NNIn0.AAAAAAAAAAAAAAAA.BBBBBBBBBBBBBBBB.CCCCCCCCCCCCCCCC.DDDDDDDDDDDDDDDD",
	}
	values := map[string]string{
		"ISSUER/": server.URL + "/",
		"ISSUER":  server.URL,
		"KID":     kidOf(issuer),
	}
	for name, token := range tokens {
		values[name] = token
	}
	values["HTTPS"] = strings.Replace(server.URL, "http:", "https:", 1)

	replay(
		t,
		"testdata/explain.txtar",
		func(args []string, stdin, stdout, stderr *bytes.Buffer) int {
			clock := now
			if len(args) > 0 && strings.HasPrefix(args[0], "clock=") {
				off, err := time.ParseDuration(strings.TrimPrefix(args[0], "clock="))
				if err != nil {
					t.Fatal(err)
				}
				clock, args = now.Add(off), args[1:]
			}
			if args[0] == "explain" && args[len(args)-1] != "bare" {
				args = append(
					[]string{"explain", "--document=api.yaml", "--audience=https://api.example/"},
					args[1:]...)
			} else if args[len(args)-1] == "bare" {
				args = args[:len(args)-1]
			}
			tool := tool{
				stdin:  stdin,
				out:    newPage(stdout),
				errors: newPage(stderr),
				now:    func() time.Time { return clock },
			}
			code := tool.run(t.Context(), args)
			for name, token := range tokens {
				for segment := range strings.SplitSeq(token, ".") {
					if out := stdout.String() + stderr.String(); len(segment) > 11 &&
						strings.Contains(out, segment[len(segment)-12:]) {
						t.Errorf(
							"a part of the token %s is printed by authz %s",
							name,
							strings.NewReplacer(pairs(values, false)...).
								Replace(strings.Join(args, " ")),
						)
					}
				}
			}
			return code
		},
		values,
	)
}

func kidOf(issuer *devissuer.Issuer) string {
	kid, _ := issuer.CurrentKey()
	return kid
}

// claimsOf returns the claims of a genuine token.
func claimsOf(t *testing.T, issuer *devissuer.Issuer) map[string]any {
	t.Helper()
	return map[string]any{
		"iss": issuer.URL(), "sub": "somebody", "aud": "https://api.example/",
		"exp": time.Date(2026, 11, 23, 13, 0, 0, 0, time.UTC).Unix(),
	}
}
