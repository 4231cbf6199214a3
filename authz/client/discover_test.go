package client_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oasgate/oasgate/authz/client"
	"github.com/oasgate/oasgate/authz/devissuer"
)

const audience = "https://api.example"

// startIssuer runs an issuer that ends with the test.
func startIssuer(t testing.TB, url string) *devissuer.Server {
	t.Helper()
	scopes := []string{"read:messages", "read:messages:all", "write:messages"}
	issuer, err := devissuer.Start(devissuer.Config{
		URL: url, Audiences: []string{audience}, Scopes: scopes,
		Clients: []devissuer.Client{{ID: "full", Secret: secret, Scopes: scopes},
			{ID: "none", Secret: secret}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(issuer.Close)
	return issuer
}

// secret has characters that forms, URLs and headers encode differently.
const secret = "s3cret & +%/=:@"

func TestDiscover(t *testing.T) {
	for _, path := range []string{"/", "", "/tenant", "/tenant/"} {
		t.Run("issuer at "+path, func(t *testing.T) {
			issuer := startIssuer(t, "http://127.0.0.1:0"+path)
			base := strings.TrimSuffix(issuer.URL(), "/")
			found, err := client.Discover(t.Context(), nil, issuer.URL())
			if err != nil || found.Issuer != issuer.URL() || found.Token != base+"/oauth/token" ||
				found.KeySet != base+"/.well-known/jwks.json" || len(found.DPoPAlgorithms) == 0 ||
				len(found.TokenAuthMethods) == 0 {
				t.Errorf("discovery of %s: %+v, %v: want the endpoints of the development "+
					"issuer", issuer.URL(), found, err)
			}
		})
	}
}

// An issuer with the metadata of RFC 8414 only: it is before the path, not after it.
func TestDiscoverOAuthMetadata(t *testing.T) {
	var server *httptest.Server
	server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/.well-known/oauth-authorization-server/tenant" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w,
			`{"issuer":"%[1]s/tenant","authorization_endpoint":"%[1]s/a","token_endpoint":"%[1]s/t"}`, server.URL)
	}))
	defer server.Close()
	found, err := client.Discover(t.Context(), nil, server.URL+"/tenant")
	if err != nil || found.Token != server.URL+"/t" || found.Authorization != server.URL+"/a" {
		t.Errorf("%+v, %v: want the endpoints of the OAuth metadata", found, err)
	}
	_, err = client.Discover(t.Context(), nil, server.URL+"/other")
	if err == nil ||
		!strings.Contains(err.Error(), "/other/.well-known/openid-configuration: status is 404") ||
		!strings.Contains(err.Error(),
			"/.well-known/oauth-authorization-server/other: status is 404") {
		t.Errorf("error of an issuer without metadata is %v: want both places, and what each "+
			"answers", err)
	}
}

func TestDiscoverRefuses(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("a redirect was followed")
	}))
	defer elsewhere.Close()
	issuer := startIssuer(t, "")
	document := func(change string) []byte {
		return fmt.Appendf(nil, `{"issuer":"%s","token_endpoint":"https://issuer.example/token"%s}`, issuer.URL(), change)
	}
	for _, test := range []struct {
		name  string
		fault devissuer.Fault
		want  string
	}{
		{"another issuer", devissuer.Fault{DiscoveryIssuer: "https://other.example/"}, `issuer is "https://other.example/", expected "` + issuer.URL() + `": write it exactly`},
		{"without its slash", devissuer.Fault{DiscoveryIssuer: strings.TrimSuffix(issuer.URL(), "/")}, "they differ by a trailing slash only"},
		{"a failing issuer", devissuer.Fault{Status: 500}, "status is 500, expected 200"},
		{"a redirect", devissuer.Fault{Redirect: elsewhere.URL}, "status is 302, expected 200 (redirects are not followed)"},
		{"no answer", devissuer.Fault{Down: true}, "the issuer does not answer: EOF"},
		{"a page for people", devissuer.Fault{ContentType: "text/html"}, `Content-Type is "text/html", expected application/json`},
		{"no JSON", devissuer.Fault{Body: []byte("nonsense")}, "expected a JSON object"},
		{"too long", devissuer.Fault{Body: document(`,"filler":"` + strings.Repeat("a", 300<<10) + `"`)}, "larger than 256 KiB"},
		{"no token endpoint", devissuer.Fault{Body: fmt.Appendf(nil, `{"issuer":"%s"}`, issuer.URL())}, "token_endpoint is missing"},
		{"a token endpoint without TLS", devissuer.Fault{Body: fmt.Appendf(nil, `{"issuer":"%s","token_endpoint":"http://issuer.example/token"}`, issuer.URL())}, `token_endpoint is "http://issuer.example/token": expected an https URL`},
		{"an authorization endpoint without TLS", devissuer.Fault{Body: document(`,"authorization_endpoint":"http://issuer.example/a"`)}, "authorization_endpoint is"},
		{"an authorization endpoint that is a script", devissuer.Fault{Body: document(`,"authorization_endpoint":"javascript:alert(1)"`)}, "authorization_endpoint is"},
	} {
		t.Run(test.name, func(t *testing.T) {
			issuer.Fail(test.fault)
			found, err := client.Discover(t.Context(), nil, issuer.URL())
			if _, typed := errors.AsType[*client.DiscoveryError](err); !typed ||
				!strings.Contains(err.Error(), test.want) {
				t.Errorf("%+v, %v: want a DiscoveryError that says %q", found, err, test.want)
			}
			mismatch, ok := errors.AsType[*client.IssuerError](err)
			if ok != (test.fault.DiscoveryIssuer != "") ||
				ok && mismatch.Received != test.fault.DiscoveryIssuer {
				t.Errorf("the cause is %+v: want an IssuerError for another issuer, and for "+
					"nothing else", mismatch)
			}
		})
	}
}

func TestDiscoverRefusesIssuer(t *testing.T) {
	for _, issuer := range []string{"", "issuer.example", "http://issuer.example/", "http://localhost.example/", "https:///", "https://u:hunter2@issuer.example/", "https://issuer.example/?a", "https://issuer.example/#", "https://issuer.example/?p=hunter2\x7f", "ftp://localhost/"} {
		_, err := client.Discover(t.Context(), &http.Client{Transport: unreachable{t}}, issuer)
		if err == nil || !strings.Contains(err.Error(), "expected a URL such as https://tenant.example/") || strings.Contains(err.Error(), "u:hunter2") {
			t.Errorf("issuer %q: error is %v: want it to be refused without a request", issuer,
				err)
		}
	}
}

type unreachable struct{ t *testing.T }

func (u unreachable) RoundTrip(r *http.Request) (*http.Response, error) {
	u.t.Errorf("a request to %s, want none", r.URL.Redacted())
	return nil, errors.New("unreachable")
}

// The metadata of a remote issuer must not have endpoints on the client's machine.
func TestDiscoverOfAnIssuerElsewhere(t *testing.T) {
	for _, member := range []string{"token_endpoint", "authorization_endpoint", "jwks_uri"} {
		metadata := map[string]string{"issuer": "https://issuer.example/", "token_endpoint": "https://issuer.example/token"}
		metadata[member] = "http://localhost:6379/x"
		text, _ := json.Marshal(metadata)
		_, err := client.Discover(t.Context(), &http.Client{Transport: answering(text)}, "https://issuer.example/")
		if _, typed := errors.AsType[*client.DiscoveryError](err); !typed || !strings.Contains(err.Error(), member+` is "http://localhost:6379/x": expected an https URL`) {
			t.Errorf("%s on loopback: error is %v, want it to be refused", member, err)
		}
	}
}

// answering is a transport that returns the same response to each request.
type answering []byte

func (a answering) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: 200,
		Header: http.Header{"Content-Type": {"application/json"}},
		Body:   io.NopCloser(bytes.NewReader(a)), Request: r}, nil
}

// An issuer whose response never ends does not block a caller for long.
func TestDiscoverTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		started := time.Now()
		_, err := client.Discover(t.Context(), &http.Client{Transport: hanging{}}, "https://issuer.example/")
		if took := time.Since(started); !errors.Is(err, context.DeadlineExceeded) ||
			took != 10*time.Second {
			t.Errorf("after %s: %v, want an error after 10 s", took, err)
		}
	})
}

type hanging struct{}

func (hanging) RoundTrip(r *http.Request) (*http.Response, error) {
	reader, writer := io.Pipe()
	context.AfterFunc(r.Context(), func() { writer.CloseWithError(r.Context().Err()) })
	return &http.Response{StatusCode: 200,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: reader, Request: r}, nil
}
