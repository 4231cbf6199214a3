package devissuer_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/oasgate/oasgate/authz/devissuer"
	"github.com/oasgate/oasgate/authz/token"
)

const tokenURL = issuerURL + "oauth/token"

func newProver(t testing.TB, alg string) *devissuer.Prover {
	t.Helper()
	prover, err := devissuer.NewProver(alg, func() time.Time { return now })
	if err != nil {
		t.Fatalf("NewProver: %v", err)
	}
	return prover
}

// RFC 9449 §5: the token is bound to the key of the proof, and token_type is DPoP.
func TestTokenEndpointBindsToTheProofsKey(t *testing.T) {
	for _, alg := range []string{"ES256", "EdDSA", "PS256", "RS256"} {
		t.Run(alg, func(t *testing.T) {
			issuer, prover := newIssuer(t), newProver(t, alg)
			w := serve(issuer, post(formType, good().Encode(), "DPoP",
				prover.Proof("POST", tokenURL, "", nil)))
			if w.Code != http.StatusOK {
				t.Fatalf("status %d, want 200; body %s", w.Code, w.Body)
			}
			var answer struct {
				AccessToken string `json:"access_token"`
				TokenType   string `json:"token_type"`
			}
			if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
				t.Fatal(err)
			}
			wantEqual(t, "token_type", answer.TokenType, "DPoP")
			_, claims, err := verify(get(issuer, ".well-known/jwks.json").Body.Bytes(),
				answer.AccessToken)
			if err != nil {
				t.Fatalf("the token is not the issuer's: %v", err)
			}
			wantEqual(t, "cnf", claims["cnf"], map[string]any{"jkt": prover.Thumbprint()})
		})
	}
}

func TestTokenEndpointRefusesBadProofs(t *testing.T) {
	prover := newProver(t, "ES256")
	var private map[string]any
	if err := json.Unmarshal(prover.JWK(), &private); err != nil {
		t.Fatal(err)
	}
	private["d"] = "AAAA"
	proof := func(claims map[string]any) string {
		return prover.Proof("POST", tokenURL, "", claims)
	}
	genuine := proof(nil)
	for _, test := range []struct {
		name    string
		headers []string
		says    string
	}{
		{"two headers", []string{"DPoP", genuine, "DPoP", genuine}, "more than one DPoP header"},
		{"rubbish", []string{"DPoP", "x"}, "not three segments of canonical base64url"},
		{"of another method", []string{"DPoP", proof(map[string]any{"htm": "GET"})}, "htm is"},
		{"of another endpoint", []string{"DPoP", proof(map[string]any{"htu": issuerURL + "other"})}, "the path of htu"},
		{"of another server", []string{"DPoP", proof(map[string]any{"htu": "https://elsewhere.example/oauth/token"})}, "htu is a URL of"},
		{"old", []string{"DPoP", proof(map[string]any{"iat": now.Unix() - 60})}, "was made 1m0s ago"},
		{"without jti", []string{"DPoP", proof(map[string]any{"jti": nil})}, "jti has 0 bytes"},
		{"with the private key", []string{"DPoP", prover.Sign(map[string]any{"jwk": private}, map[string]any{"htm": "POST", "htu": tokenURL, "iat": now.Unix(), "jti": "1"})}, "private or symmetric key"},
		{"signed by another key", []string{"DPoP", prover.Sign(map[string]any{"jwk": newProver(t, "ES256").JWK()}, map[string]any{"htm": "POST", "htu": tokenURL, "iat": now.Unix(), "jti": "1"})}, "the signature of the proof"},
		{"an access token in place of a proof", []string{"DPoP", newIssuer(t).Mint(nil)}, "typ of the proof"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := serve(newIssuer(t), post(formType, good().Encode(), test.headers...))
			if w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(),
				`"error":"invalid_dpop_proof"`) || !strings.Contains(w.Body.String(), test.says) {
				t.Errorf("answered %d %s: want 400 invalid_dpop_proof that says %q", w.Code, w.Body,
					test.says)
			}
			if strings.Contains(w.Body.String(), "access_token") {
				t.Errorf("there is a token in %s", w.Body)
			}
		})
	}

	issuer := newIssuer(t)
	for n, status := range []int{200, 400} {
		if w := serve(issuer, post(formType, good().Encode(), "DPoP", genuine)); w.Code != status {
			t.Errorf("use %d of one proof: answered %d %s, want %d", n+1, w.Code, w.Body, status)
		}
	}
}

// Two independent implementations of RFC 7638 have the same result.
func TestProverThumbprint(t *testing.T) {
	for _, alg := range []string{"ES256", "EdDSA", "PS256", "RS256"} {
		prover := newProver(t, alg)
		jkt, _, err := token.ProofThumbprint(token.Proof{JWT: prover.Proof("POST", tokenURL, "",
			nil), Method: "POST", URL: tokenURL}, now)
		if err != nil || jkt != prover.Thumbprint() {
			t.Errorf("%s: ProofThumbprint is %q, %v; Thumbprint is %q", alg, jkt, err,
				prover.Thumbprint())
		}
	}
}
