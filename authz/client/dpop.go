package client

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"
)

// prover proves possession of the key that the client's tokens are bound to (RFC 9449).
type prover struct {
	key    *ecdsa.PrivateKey
	header string // of every proof, encoded
	now    func() time.Time

	mu     sync.Mutex
	nonces map[string]string // by origin, for the next proof (RFC 9449 §8.2)
}

func newProver(now func() time.Time) (*prover, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	point, err := key.PublicKey.Bytes() // 0x04, x, y (SEC 1 §2.3.3)
	if err != nil {
		return nil, err
	}
	header, err := segment(map[string]any{
		"typ": "dpop+jwt", "alg": "ES256",
		"jwk": map[string]string{"kty": "EC", "crv": "P-256", "x": base64url(point[1:33]),
			"y": base64url(point[33:])},
	})
	return &prover{key: key, header: header, now: now, nonces: map[string]string{}}, err
}

// prove adds a proof to a request (RFC 9449 §4.2) and returns its nonce. token is the access token
// of the request, or "" for a token request.
func (p *prover) prove(r *http.Request, token string) (nonce string, err error) {
	p.mu.Lock()
	nonce = p.nonces[originOf(r.URL)]
	p.mu.Unlock()
	path := r.URL.EscapedPath()
	if path == "" {
		path = "/"
	}
	claims := map[string]any{
		"htm": r.Method, "htu": originOf(r.URL) + path, // neither query nor fragment
		"iat": p.now().Unix(), "jti": rand.Text(),
	}
	if token != "" {
		sum := sha256.Sum256([]byte(token))
		claims["ath"] = base64url(sum[:])
	}
	if nonce != "" {
		claims["nonce"] = nonce
	}
	payload, err := segment(claims)
	if err != nil {
		return "", err
	}
	input := p.header + "." + payload
	sum := sha256.Sum256([]byte(input))
	x, y, err := ecdsa.Sign(rand.Reader, p.key, sum[:])
	if err != nil {
		return "", fmt.Errorf("client: signing a DPoP proof: %w", err)
	}
	signature := make([]byte, 64) // RFC 7518 §3.4
	x.FillBytes(signature[:32])
	y.FillBytes(signature[32:])
	r.Header.Set("DPoP", input+"."+base64url(signature))
	return nonce, nil
}

// storeNonce stores the nonce of a response, and reports whether it differs from the one that was
// sent: only then can a retry help.
func (p *prover) storeNonce(from *url.URL, answer http.Header, sent string) bool {
	nonce := answer.Get("DPoP-Nonce")
	if nonce == "" || nonce == sent {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.nonces[originOf(from)] = nonce
	return true
}

// proofTransport adds a proof to each token request, and retries once if the issuer requires a
// nonce (RFC 9449 §8).
type proofTransport struct {
	prover *prover
	base   http.RoundTripper
}

func (t *proofTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	response, retry, err := t.send(r)
	if err != nil || !retry {
		return response, err
	}
	again, ok := rewind(r)
	if !ok {
		return response, nil
	}
	response, _, err = t.send(again)
	return response, err
}

func (t *proofTransport) send(r *http.Request) (response *http.Response, retry bool, err error) {
	sent := r.Clone(r.Context())
	nonce, err := t.prover.prove(sent, "")
	if err != nil {
		closeBody(r)
		return nil, false, err
	}
	response, err = t.base.RoundTrip(sent)
	if err != nil {
		return nil, false, err
	}
	if !t.prover.storeNonce(r.URL, response.Header, nonce) ||
		response.StatusCode != http.StatusBadRequest {
		return response, false, nil
	}
	// The error code is in the body, which the caller reads again.
	body, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	response.Body.Close()
	if err != nil {
		return nil, false, err
	}
	response.Body = io.NopCloser(bytes.NewReader(body))
	var refusal struct {
		Code string `json:"error"`
	}
	return response, json.Unmarshal(body, &refusal) == nil && refusal.Code == "use_dpop_nonce", nil
}

// segment encodes a part of a compact JWS (RFC 7515 §7.1).
func segment(v any) (string, error) {
	text, err := json.Marshal(v)
	return base64url(text), err
}

func base64url(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
