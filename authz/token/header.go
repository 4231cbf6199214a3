package token

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/go-json-experiment/json/jsontext"
)

// header holds the parameters of a JOSE header (RFC 7515 §4.1) that are used. jku, x5u and x5c are
// ignored, and so is jwk in a token: its key comes from the issuer's key set only.
type header struct {
	alg, kid, typ []byte         // nil when absent
	jwk           jsontext.Value // for DPoP proofs alone; nil when absent
}

func parseHeader(data []byte) (header, error) {
	var h header
	err := eachMember(data, func(name []byte, value jsontext.Value) (err error) {
		switch string(name) {
		case "alg":
			h.alg, err = textOf("alg", value)
		case "kid":
			h.kid, err = textOf("kid", value)
		case "typ":
			h.typ, err = textOf("typ", value)
		case "jwk":
			h.jwk = value
		case "crit", "b64", "zip", "cty":
			// Each changes the meaning of the signed bytes: critical extensions (RFC 7515 §4.1.11),
			// an unencoded payload (RFC 7797), compression, a nested token (RFC 7519 §5.2).
			err = errors.New(string(name) + " is not allowed")
		}
		return err
	})
	if err != nil {
		return header{}, refuse(Malformed, "header: %v", err)
	}
	if string(h.alg) == ed25519Name {
		h.alg = []byte(canonicalAlgorithm(ed25519Name))
	}
	if len(h.alg) == 0 {
		return header{}, refuse(WrongAlgorithm, "the header has no alg")
	}
	if h.kid != nil && len(h.kid) == 0 {
		return header{}, refuse(UnknownKey, "kid is an empty string")
	}
	return h, nil
}

// headers caches the parsed headers of accepted tokens, by their bytes, because an issuer writes
// the same header for all tokens that it signs with one key.
type headers struct {
	known atomic.Value // an immutable map[string]header
}

const maxHeaders = 64

func (k *headers) parse(data []byte) (header, error) {
	known, _ := k.known.Load().(map[string]header)
	if h, ok := known[string(data)]; ok {
		return h, nil
	}
	return parseHeader(data)
}

// keep caches the header of an accepted token. Of two concurrent calls one may have no effect.
func (k *headers) keep(data []byte) {
	before, _ := k.known.Load().(map[string]header)
	if _, ok := before[string(data)]; ok {
		return
	}
	after := map[string]header{}
	if len(before) < maxHeaders {
		maps.Copy(after, before)
	}
	data = bytes.Clone(data) // do not keep the rest of the decoded token in memory
	if h, err := parseHeader(data); err == nil {
		h.jwk = nil
		after[string(data)] = h
		k.known.Store(after)
	}
}

// check applies the issuer's rules to the header.
func (h header) check(i *issuer) error {
	if !slices.Contains(i.Algorithms, string(h.alg)) {
		return refuse(WrongAlgorithm, "alg is %s, the issuer's allow-list is %s",
			quote(string(h.alg)), strings.Join(i.Algorithms, ", "))
	}
	typ := func(name string) bool { return strings.EqualFold(string(h.typ), name) }
	switch {
	case typ("at+jwt") || typ("application/at+jwt"): // RFC 9068 §2.1
		return nil
	case (h.typ == nil || typ("JWT")) && !i.RFC9068:
		return nil
	case h.typ == nil:
		return refuse(WrongType, "typ is absent, expected at+jwt (RFC 9068 §4, the strict profile)")
	case typ("JWT"):
		return refuse(WrongType, "typ is %s, expected at+jwt (RFC 9068 §4, the strict profile)",
			quote(string(h.typ)))
	case typ("dpop+jwt"):
		return refuse(WrongType, "typ is dpop+jwt: this is a DPoP proof, not an access token")
	case typ("logout+jwt"):
		return refuse(WrongType, "typ is logout+jwt: this is a logout token, not an access token")
	}
	return refuse(WrongType, "typ is %s, expected at+jwt, JWT or none", quote(string(h.typ)))
}
