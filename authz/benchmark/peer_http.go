package main

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"time"
)

func rawHTTP(string) (http.Handler, error) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+path, writeMessage)
	return mux, nil
}

func writeMessage(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(message{text})
}

// standardLibrary does as little as a correct check can, without a cache of tokens.
func standardLibrary(issuer string) (http.Handler, error) {
	v := verifier{issuer: issuer, keys: map[string]*rsa.PublicKey{}}
	response, err := http.Get(issuer + ".well-known/jwks.json")
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	var set struct{ Keys []struct{ Kid, N, E string } }
	if err := json.NewDecoder(response.Body).Decode(&set); err != nil {
		return nil, err
	}
	for _, key := range set.Keys {
		n, e := new(big.Int).SetBytes(decode(key.N)), new(big.Int).SetBytes(decode(key.E))
		v.keys[key.Kid] = &rsa.PublicKey{N: n, E: int(e.Int64())}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
		token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if status := v.verify(token); status != http.StatusOK {
			http.Error(w, http.StatusText(status), status)
			return
		}
		writeMessage(w, r)
	})
	return mux, nil
}

type verifier struct {
	issuer string
	keys   map[string]*rsa.PublicKey
}

// verify returns 200, 401 or 403.
func (v verifier) verify(token string) int {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return http.StatusUnauthorized
	}
	var header struct{ Alg, Kid string }
	if json.Unmarshal(decode(parts[0]), &header) != nil || header.Alg != "RS256" {
		return http.StatusUnauthorized
	}
	key := v.keys[header.Kid]
	digest := sha256.Sum256([]byte(token[:len(parts[0])+1+len(parts[1])]))
	if key == nil || rsa.VerifyPKCS1v15(key, crypto.SHA256, digest[:], decode(parts[2])) != nil {
		return http.StatusUnauthorized
	}
	var claims struct {
		Iss, Scope string
		Aud        audiences
		Exp, Nbf   int64
	}
	now := time.Now().Unix()
	if json.Unmarshal(decode(parts[1]), &claims) != nil || claims.Iss != v.issuer ||
		claims.Exp <= now || claims.Nbf > now || !slices.Contains(claims.Aud, audience) {
		return http.StatusUnauthorized
	}
	if !hasScope(claims.Scope, scope) {
		return http.StatusForbidden
	}
	return http.StatusOK
}

// audiences is one audience or a list of them.
type audiences []string

func (a *audiences) UnmarshalJSON(data []byte) error {
	if data[0] == '"' {
		*a = []string{""}
		return json.Unmarshal(data, &(*a)[0])
	}
	return json.Unmarshal(data, (*[]string)(a))
}

func decode(segment string) []byte {
	data, _ := base64.RawURLEncoding.DecodeString(segment) // nil passes no check
	return data
}

func hasScope(list, want string) bool {
	for each := range strings.SplitSeq(list, " ") {
		if each == want {
			return true
		}
	}
	return false
}
