package authztest_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/oasgate/oasgate/authz"
	"github.com/oasgate/oasgate/authz/devissuer"
)

// flaw is a classic fault of servers that check access tokens.
type flaw string

const (
	none flaw = "" // the server is right

	anyScope           flaw = "any one of the scopes will do"
	scopePrefix        flaw = "scopes are compared by prefix"
	missingIsForbidden flaw = "403 for a missing token"
	expiryUnchecked    flaw = "expiry is not checked"
	audienceUnchecked  flaw = "the audience is not checked"
	kidIgnored         flaw = "kid is ignored"
	validatorFirst     flaw = "the body is validated before the token"
	unguardedRoute     flaw = "one route is not guarded"
	cachedVerdict      flaw = "the verdict on a token is cached across operations"
	failOpen           flaw = "open while the keys cannot be had"

	scopeSuffix        flaw = "scopes are compared by suffix"
	scopeCut           flaw = "a required scope may begin with the granted one"
	scopeCase          flaw = "scopes are compared without regard to case"
	noneAccepted       flaw = "alg none is accepted"
	algorithmOfToken   flaw = "the token chooses the algorithm"
	embeddedKeyTrusted flaw = "a jwk in the header is trusted"
	signatureUnchecked flaw = "the signature is not checked"
	notBeforeUnchecked flaw = "nbf is not checked"
	issuerPrefix       flaw = "the issuer is compared by prefix"
	bindingIgnored     flaw = "a bound token passes as a bearer token"
	malformedForgiven  flaw = "a token that cannot be read is none"
	schemeIgnored      flaw = "any scheme is taken for Bearer"
	publicRefuses      flaw = "a public operation refuses bad tokens"
	publicIsGuarded    flaw = "a public operation asks for a token"
	optionalIsRequired flaw = "a token is required where it is optional"
	genuineRefused     flaw = "genuine tokens are refused"
	errorCodeMissing   flaw = "challenges never say error"
	errorCodeAlways    flaw = "challenges always say error"
	scopesUnnamed      flaw = "403 does not name the scopes"
	htmlErrors         flaw = "errors are HTML"
	cacheable          flaw = "refusals may be cached"
	tokenRepeated      flaw = "the token is given back"
	outageIsInvalid    flaw = "an outage is answered as an invalid token"

	proofUnchecked  flaw = "the DPoP proof is not checked"
	proofUsedAgain  flaw = "a DPoP proof may be used again"
	certificateAny  flaw = "a token bound to a certificate passes with any certificate"
	proofOfAnyURL   flaw = "the URL of a DPoP proof is not looked at"
	answersAnything flaw = "a handler answers what the document does not describe"
)

// server enforces a plan without package authz, like a short server that a team writes by hand.
// Without a flaw it passes all cases of the kit, so the kit does not depend on the gate.
type server struct {
	http.Handler
	flaw     flaw
	issuer   string
	audience string
	keys     map[string]*ecdsa.PublicKey // nil: they cannot be had
	calls    int
	verdicts map[string]bool
	proofs   map[string]bool // used
}

func newServer(plan *authz.Plan, issuer *devissuer.Server, audience string,
	keys map[string]*ecdsa.PublicKey, f flaw) *server {
	mux := http.NewServeMux()
	s := &server{Handler: mux, flaw: f, issuer: issuer.URL(), audience: audience, keys: keys,
		verdicts: map[string]bool{}, proofs: map[string]bool{}}
	for _, o := range plan.Operations() {
		mux.HandleFunc(o.Method+" "+o.Path, func(w http.ResponseWriter, r *http.Request) {
			if refused := s.authorizeRequest(r, o); refused != nil {
				s.refuse(w, r, refused)
				return
			}
			if refused := validate(r); refused != nil {
				s.refuse(w, r, refused)
				return
			}
			s.calls++
			if s.flaw == answersAnything {
				w.WriteHeader(http.StatusTeapot)
				return
			}
			w.WriteHeader(http.StatusNoContent)
		})
	}
	return s
}

// refusal is an answer other than the handler's.
type refusal struct {
	status    int
	challenge string // after the realm
}

var (
	missing      = &refusal{http.StatusUnauthorized, ""}
	invalidToken = &refusal{http.StatusUnauthorized, `, error="invalid_token"`}
	invalidProof = &refusal{http.StatusUnauthorized, `, error="invalid_dpop_proof"`}
	unavailable  = &refusal{http.StatusServiceUnavailable, ""}
	invalidBody  = &refusal{http.StatusBadRequest, ""}
)

func (s *server) authorizeRequest(r *http.Request, o authz.Operation) *refusal {
	if o.Public() {
		switch {
		case s.flaw == publicIsGuarded, s.flaw == publicRefuses &&
			r.Header.Get("Authorization") != "":
			return invalidToken
		}
		return nil
	}
	if s.flaw == unguardedRoute && o.ID == "listMessages" {
		return nil
	}
	if s.flaw == validatorFirst {
		if refused := validate(r); refused != nil {
			return refused
		}
	}
	scheme, raw, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	proven := ""
	if strings.EqualFold(scheme, "DPoP") {
		var ok bool
		if proven, ok = s.checkProof(r, raw); !ok {
			return invalidProof
		}
		scheme = "Bearer"
	}
	if s.flaw == schemeIgnored && scheme != "" {
		scheme = "Bearer"
	}
	if !strings.EqualFold(scheme, "Bearer") {
		switch {
		case o.Optional() && s.flaw != optionalIsRequired:
			return nil
		case s.flaw == missingIsForbidden:
			return &refusal{http.StatusForbidden, `, error="insufficient_scope", scope=""`}
		}
		return missing
	}
	if s.flaw == cachedVerdict && s.verdicts[raw] {
		return nil
	}
	claims, refused := s.verify(raw)
	switch {
	case refused != nil:
		return refused
	case proven != "" && claims.Cnf.Jkt != proven && s.flaw != proofUnchecked:
		return invalidProof
	case proven == "" && claims.Cnf.Jkt != "" && s.flaw != bindingIgnored,
		claims.Cnf.X5t != "" && !s.isBoundTo(claims.Cnf.X5t, r):
		return invalidToken
	}
	if refused := s.authorize(o, claims); refused != nil {
		return refused
	}
	s.verdicts[raw] = true
	return nil
}

// isBoundTo reports whether the client has the certificate of a thumbprint (RFC 8705 §3.1).
func (s *server) isBoundTo(thumbprint string, r *http.Request) bool {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return s.flaw == bindingIgnored
	}
	sum := sha256.Sum256(r.TLS.PeerCertificates[0].Raw)
	return base64.RawURLEncoding.EncodeToString(sum[:]) == thumbprint ||
		s.flaw == certificateAny || s.flaw == bindingIgnored
}

type claims struct {
	Iss, Aud, Scope string
	Exp, Nbf        int64
	Cnf             struct {
		Jkt string
		X5t string `json:"x5t#S256"`
	}
}

// checkProof checks a DPoP proof (RFC 9449 §4.3), and returns the thumbprint of its key.
func (s *server) checkProof(r *http.Request, raw string) (jkt string, ok bool) {
	var header struct {
		Typ, Alg string
		Jwk      struct{ X, Y string }
	}
	var c struct {
		Htm, Htu, Ath, Jti string
		Iat                int64
	}
	parts := strings.Split(r.Header.Get("DPoP"), ".")
	if s.flaw == proofUnchecked {
		return "unchecked", true
	}
	if len(parts) != 3 || !decode(parts[0], &header) || !decode(parts[1], &c) ||
		header.Typ != "dpop+jwt" || header.Alg != "ES256" {
		return "", false
	}
	signature, _ := base64.RawURLEncoding.DecodeString(parts[2])
	key := publicKey(header.Jwk.X, header.Jwk.Y)
	ath := sha256.Sum256([]byte(raw))
	age := time.Since(time.Unix(c.Iat, 0))
	path, _, _ := strings.Cut(r.RequestURI, "?") // as the client wrote it
	switch {
	case key == nil || !verifies(key, parts[0]+"."+parts[1], signature),
		c.Htm != r.Method || age > time.Minute || age < -time.Minute,
		c.Htu != "http://"+r.Host+path && s.flaw != proofOfAnyURL,
		c.Ath != base64.RawURLEncoding.EncodeToString(ath[:]),
		s.proofs[c.Jti] && s.flaw != proofUsedAgain:
		return "", false
	}
	s.proofs[c.Jti] = true
	sum := sha256.Sum256(fmt.Appendf(nil, `{"crv":"P-256","kty":"EC","x":"%s","y":"%s"}`,
		header.Jwk.X, header.Jwk.Y))
	return base64.RawURLEncoding.EncodeToString(sum[:]), true
}

// verify accepts ES256 only.
func (s *server) verify(raw string) (claims, *refusal) {
	var header struct {
		Alg, Kid string
		Jwk      *struct{ X, Y string }
	}
	var c claims
	parts := strings.Split(raw, ".")
	if len(parts) != 3 || !decode(parts[0], &header) || !decode(parts[1], &c) {
		if s.flaw == malformedForgiven {
			return c, missing
		}
		return c, invalidToken
	}
	now := time.Now().Unix()
	switch {
	case c.Iss != s.issuer && !(s.flaw == issuerPrefix && strings.HasPrefix(c.Iss, s.issuer)),
		c.Aud != s.audience && s.flaw != audienceUnchecked,
		c.Exp <= now && s.flaw != expiryUnchecked,
		c.Nbf > now && s.flaw != notBeforeUnchecked:
		return c, invalidToken
	case s.keys == nil && s.flaw == failOpen:
		return c, nil
	case s.keys == nil && s.flaw == outageIsInvalid:
		return c, invalidToken
	case s.keys == nil:
		return c, unavailable
	}
	key := s.keys[header.Kid]
	if s.flaw == kidIgnored {
		for _, key = range s.keys { // there is one
		}
	}
	if s.flaw == embeddedKeyTrusted && header.Jwk != nil {
		key = publicKey(header.Jwk.X, header.Jwk.Y)
	}
	input := parts[0] + "." + parts[1]
	signature, _ := base64.RawURLEncoding.DecodeString(parts[2])
	switch {
	case s.flaw == noneAccepted && strings.EqualFold(header.Alg, "none"):
	case key == nil:
		return c, invalidToken
	case s.flaw == algorithmOfToken && header.Alg == "HS256":
		der, _ := x509.MarshalPKIXPublicKey(key)
		mac := hmac.New(sha256.New, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
		mac.Write([]byte(input))
		if !hmac.Equal(mac.Sum(nil), signature) {
			return c, invalidToken
		}
	case header.Alg != "ES256":
		return c, invalidToken
	case s.flaw != signatureUnchecked && !verifies(key, input, signature):
		return c, invalidToken
	case s.flaw == genuineRefused:
		return c, invalidToken
	}
	return c, nil
}

func decode(segment string, into any) bool {
	b, err := base64.RawURLEncoding.DecodeString(segment)
	return err == nil && json.Unmarshal(b, into) == nil
}

func publicKey(x, y string) *ecdsa.PublicKey {
	point := append([]byte{4}, append(number(x).FillBytes(make([]byte, 32)),
		number(y).FillBytes(make([]byte, 32))...)...)
	key, _ := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	return key
}

func number(s string) *big.Int {
	b, _ := base64.RawURLEncoding.DecodeString(s)
	return new(big.Int).SetBytes(b)
}

func verifies(key *ecdsa.PublicKey, input string, signature []byte) bool {
	digest := sha256.Sum256([]byte(input))
	return len(signature) == 64 &&
		ecdsa.Verify(key, digest[:], new(big.Int).SetBytes(signature[:32]),
			new(big.Int).SetBytes(signature[32:]))
}

// authorize returns the first satisfied alternative. A refusal is that of the alternative closest
// to success.
func (s *server) authorize(o authz.Operation, c claims) *refusal {
	granted := strings.Fields(c.Scope)
	var nearest []string
	fewest := -1
	for _, alternative := range o.Alternatives {
		var required []string
		for _, r := range alternative {
			required = append(required, r.Scopes...)
		}
		lacks := 0
		for _, scope := range required {
			if !slices.ContainsFunc(granted, func(g string) bool { return s.same(g, scope) }) {
				lacks++
			}
		}
		if lacks == 0 || s.flaw == anyScope && lacks < len(required) {
			return nil
		}
		if fewest < 0 || lacks < fewest {
			nearest, fewest = required, lacks
		}
	}
	return &refusal{http.StatusForbidden, fmt.Sprintf(`, error="insufficient_scope", scope="%s"`,
		strings.Join(nearest, " "))}
}

func (s *server) same(granted, required string) bool {
	switch s.flaw {
	case scopePrefix:
		return strings.HasPrefix(granted, required)
	case scopeSuffix:
		return strings.HasSuffix(granted, required)
	case scopeCut:
		return strings.HasPrefix(required, granted)
	case scopeCase:
		return strings.EqualFold(granted, required)
	}
	return granted == required
}

// validate reads a body and refuses what is not JSON.
func validate(r *http.Request) *refusal {
	if body, err := io.ReadAll(r.Body); err != nil || len(body) > 0 && !json.Valid(body) {
		return invalidBody
	}
	return nil
}

func (s *server) refuse(w http.ResponseWriter, r *http.Request, refused *refusal) {
	h := w.Header()
	challenge := refused.challenge
	switch {
	case s.flaw == errorCodeMissing:
		challenge = ""
	case s.flaw == errorCodeAlways && challenge == "":
		challenge = `, error="invalid_token"`
	case s.flaw == scopesUnnamed:
		challenge, _, _ = strings.Cut(challenge, ", scope=")
	}
	switch refused.status {
	case http.StatusUnauthorized, http.StatusForbidden:
		scheme := "Bearer"
		if refused == invalidProof {
			scheme = "DPoP"
		}
		h.Set("WWW-Authenticate", scheme+` realm="messages"`+challenge)
		if s.flaw != cacheable {
			h.Set("Cache-Control", "no-store")
		}
	case http.StatusServiceUnavailable:
		h.Set("Retry-After", "1")
	}
	var body bytes.Buffer
	detail := ""
	if s.flaw == tokenRepeated {
		detail = r.Header.Get("Authorization")
	}
	_ = json.NewEncoder(&body).Encode(map[string]any{"type": "about:blank",
		"title": http.StatusText(refused.status), "status": refused.status, "detail": detail})
	h.Set("Content-Type", "application/problem+json")
	if s.flaw == htmlErrors {
		h.Set("Content-Type", "text/html")
	}
	w.WriteHeader(refused.status)
	_, _ = w.Write(body.Bytes())
}
