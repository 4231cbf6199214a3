package token

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// DPoPPolicy says whether an issuer's tokens may, or must, be bound to a key of the client (RFC
// 9449). A bound token comes with a proof, made for the one request, that the client has the key:
// to have seen the token is not enough.
type DPoPPolicy string

const (
	DPoPOff      DPoPPolicy = "off"      // bearer tokens alone
	DPoPAllowed  DPoPPolicy = "allowed"  // bearer tokens, and bound ones with a proof
	DPoPRequired DPoPPolicy = "required" // bound ones with a proof alone
)

// ProofPolicy says how DPoP proofs are checked. Zero values are the defaults.
type ProofPolicy struct {
	// Window is how far the time at which a proof was made may lie from now, before or after.
	// Default 1 min, which is ample for a proof that is made for one request, and bounds what
	// Replays has to remember; at most 5 min.
	Window time.Duration
	// Replays remembers which proofs were used. Several servers must share one. Default: the
	// Predecessor's, or [NewReplayMemory] with room for about 4,000 proofs a second at the default
	// Window.
	Replays ReplayStore
	// NonceKey has proofs carry a nonce of the server (RFC 9449 §9): a proof can then not be made
	// ahead, and the client's clock does not matter, for what counts is the time of the nonce. Any
	// 32 secret bytes or more, which several servers must share. nil: no nonces are asked for.
	NonceKey []byte
	// Offered has clients told of DPoP though no issuer of Config.Issuers takes it: for those of
	// Config.Resolve.
	Offered bool
}

const (
	defaultWindow, mostWindow = time.Minute, 5 * time.Minute
	leastNonceKey             = 32
)

// Proof is what came with a token that is bound to a key (RFC 9449 §7.1).
type Proof struct {
	JWT    string // the value of the DPoP header
	Method string // of the request
	// of the request, absolute, as clients know this server; a query or a fragment does not count
	URL string
}

// proofs checks proofs.
type proofs struct {
	window  time.Duration
	now     func() time.Time
	replays ReplayStore
	nonces  *nonces // nil: none are asked for
}

func newProofs(config Config, now func() time.Time) (*proofs, []error) {
	p := &proofs{window: config.Proofs.Window, now: now, replays: config.Proofs.Replays}
	var faults []error
	if p.window == 0 {
		p.window = defaultWindow
	}
	if p.window < 0 || p.window > mostWindow {
		faults = append(faults,
			fmt.Errorf("token: Proofs.Window is %s: expected a positive duration of at most %s",
				p.window, mostWindow))
	}
	fapi2 := func(i Issuer) bool { return i.FAPI2 }
	if p.window > fapi2Ahead && slices.ContainsFunc(config.Issuers, fapi2) {
		faults = append(faults, fmt.Errorf("token: Proofs.Window is %s: expected at most %s for "+
			"issuers of the profile FAPI 2.0 (§5.3.2.1)", p.window, fapi2Ahead))
	}
	if key := config.Proofs.NonceKey; key != nil {
		if len(key) < leastNonceKey {
			faults = append(faults,
				fmt.Errorf("token: Proofs.NonceKey has %d bytes: expected at least %d, random "+
					"and secret", len(key), leastNonceKey))
		}
		p.nonces = &nonces{slices.Clone(key), p.window}
	}
	switch {
	case p.replays != nil:
	case config.Predecessor != nil:
		// or a change of the configuration would let every proof be used again
		p.replays = config.Predecessor.proofs.replays
	default:
		p.replays = NewReplayMemory(defaultReplays, now)
	}
	return p, faults
}

// DPoPOffer is what a server tells its clients of DPoP.
type DPoPOffer struct {
	Algorithms []string // that a proof may be signed with; nil: DPoP is off
	Required   bool     // no token is accepted as a bearer token
	Nonce      string   // for the next proof; "": no nonces are asked for
}

// DPoP returns what to tell clients: DPoP is on when an issuer's policy is not off.
func (v *Verifier) DPoP() DPoPOffer {
	offer := DPoPOffer{Required: v.resolver == nil}
	on, fapi2 := v.offersDPoP, !v.offersDPoP
	for _, i := range v.configured {
		if i.DPoP != DPoPOff {
			on, fapi2 = true, fapi2 && i.FAPI2
		}
		offer.Required = offer.Required && i.DPoP == DPoPRequired
	}
	switch {
	case on && fapi2:
		offer.Algorithms = slices.Sorted(slices.Values(fapi2Algorithms))
	case on:
		offer.Algorithms = ProofAlgorithms()
	}
	if offer.Algorithms != nil && v.proofs.nonces != nil {
		offer.Nonce = v.proofs.nonces.current(v.proofs.now())
	}
	return offer
}

// ProofAlgorithms is the allow-list for proofs, the same for every issuer, for the key is the
// client's.
func ProofAlgorithms() []string { return []string{"ES256", "EdDSA", "PS256", "RS256"} }

// VerifyDPoP returns the principal of a genuine token that is bound to a key, and that came with a
// proof, fresh and made for this request, of having that key: see [Verifier.VerifyPresented].
func (v *Verifier) VerifyDPoP(ctx context.Context, token string, proof Proof) (*Principal, error) {
	return v.VerifyPresented(ctx, Presented{Token: token, Proof: &proof})
}

// verifyProved verifies a token that came with a DPoP proof.
func (v *Verifier) verifyProved(ctx context.Context, presented Presented) (*verified, error) {
	// What can be said of the proof without any key.
	p, err := parseProof(presented.Proof.JWT)
	if err != nil {
		return nil, err
	}
	if err := p.checkRequest(presented.Proof.Method, presented.Proof.URL); err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(bytesOf(presented.Token)); string(p.ath) != base64url.EncodeToString(
		sum[:]) {
		return nil, refuse(InvalidProof, "ath is missing, or not the SHA-256 of the token that "+
			"came with the proof (RFC 9449 §4.2)")
	}

	known, err := v.verify(ctx, presented,
		possession{dpop: true, certificate: presented.certificate()})
	if err != nil {
		return nil, err
	}

	if known.issuer.FAPI2 {
		if err := p.checkFAPI2(v.now()); err != nil {
			return nil, err
		}
	}

	// The key is first held against the token and then used: nobody has us verify signatures of
	// keys that a genuine token does not name.
	key, err := p.key()
	if err != nil {
		return nil, err
	}
	if thumbprint(key) != known.binding.jkt {
		return nil,
			refuse(Bound,
				"the token is bound to another key (cnf.jkt) than the proof is signed with")
	}
	if err := p.checkSignature(key); err != nil {
		return nil, err
	}
	end, err := v.proofs.checkTime(p)
	if err != nil {
		return nil, err
	}
	// Last, so that nothing but proofs that pass in every other way takes room in the store.
	if err := v.proofs.use(ctx, known.binding.jkt, p, end); err != nil {
		return nil, err
	}
	return known, nil
}

// ProofThumbprint is for authorization servers (RFC 9449 §5): it checks a proof that came with a
// token request, and returns the thumbprint for the token's cnf.jkt, and the proof's jti, which is
// for the server to accept once only.
func ProofThumbprint(presented Proof, now time.Time) (jkt, jti string, err error) {
	p, err := parseProof(presented.JWT)
	if err != nil {
		return "", "", err
	}
	if err := p.checkRequest(presented.Method, presented.URL); err != nil {
		return "", "", err
	}
	key, err := p.key()
	if err != nil {
		return "", "", err
	}
	if err := p.checkSignature(key); err != nil {
		return "", "", err
	}
	if _, err := (&proofs{window: defaultWindow, now: func() time.Time {
		return now
	}}).checkTime(p); err != nil {
		return "", "", err
	}
	return thumbprint(key), string(p.jti), nil
}

// proof is a DPoP proof (RFC 9449 §4.2) taken apart, but not yet believed.
type proof struct {
	compact
	alg                       string
	jwk                       jsontext.Value
	htm, htu, jti, ath, nonce []byte // nil when absent
	iat                       numericDate
}

// mostJTI bounds the names of proofs; a UUID takes 36.
const mostJTI = 256

// parseProof checks the form of a proof, and what need not be held against anything (RFC 9449 §4.3,
// 2 to 7).
func parseProof(jwt string) (*proof, error) {
	fail := func(format string, args ...any) (*proof, error) {
		return nil, refuse(InvalidProof, format, args...)
	}
	if len(jwt) > maxTokenBytes {
		return fail("the proof has %d bytes, more than the %d that are read", len(jwt),
			maxTokenBytes)
	}
	parts, err := parseCompact(jwt)
	if err != nil {
		return fail("the proof is not three segments of canonical base64url (RFC 7515 §7.1)")
	}
	h, err := parseHeader(parts.header)
	if err != nil {
		detail := err.Error()
		if e, ok := errors.AsType[*Error](err); ok {
			detail = e.Detail
		}
		return fail("the proof: %s", detail)
	}
	if !strings.EqualFold(string(h.typ), "dpop+jwt") {
		return fail("typ of the proof is %s, expected dpop+jwt", quote(string(h.typ)))
	}
	if !slices.Contains(ProofAlgorithms(), string(h.alg)) {
		return fail("alg of the proof is %s, expected one of %s", quote(string(h.alg)),
			strings.Join(ProofAlgorithms(), ", "))
	}
	p := &proof{compact: parts, alg: string(h.alg), jwk: h.jwk}
	if err := p.parseClaims(); err != nil {
		return fail("claims of the proof: %v", err)
	}
	if err := checkPublic(p.jwk); err != nil {
		return fail("jwk of the proof: %v", err)
	}
	return p, nil
}

func (p *proof) parseClaims() error {
	err := eachMember(p.payload, func(name []byte, value jsontext.Value) (err error) {
		switch string(name) {
		case "htm":
			p.htm, err = textOf("htm", value)
		case "htu":
			p.htu, err = textOf("htu", value)
		case "jti":
			p.jti, err = textOf("jti", value)
		case "ath":
			p.ath, err = textOf("ath", value)
		case "nonce":
			p.nonce, err = textOf("nonce", value)
		case "iat":
			p.iat, err = timeOf("iat", value)
		}
		return err
	})
	switch {
	case err != nil:
		return err
	case p.htm == nil || p.htu == nil || !p.iat.present:
		return errors.New("htm, htu and iat are all required (RFC 9449 §4.2)")
	case len(p.jti) == 0 || len(p.jti) > mostJTI:
		return fmt.Errorf("jti has %d bytes, expected 1 to %d", len(p.jti), mostJTI)
	}
	return nil
}

// checkPublic: a client that sends its private key with each request has none (RFC 9449 §4.3, 7).
func checkPublic(key jsontext.Value) error {
	if key == nil {
		return errors.New("it is missing: the proof must bring the public key that it is signed " +
			"with")
	}
	return eachMember(key, func(name []byte, _ jsontext.Value) error {
		switch string(name) {
		case "d", "p", "q", "dp", "dq", "qi", "oth", "k":
			// RFC 7518 §6.2.2, §6.3.2, §6.4.1, RFC 8037 §2
			return errors.New("it holds the private or symmetric key itself. The client must " +
				"send the public key alone, and replace this one")
		}
		return nil
	})
}

// mostProofBits and proofExponent bound what a proof costs.
const mostProofBits, proofExponent = 4096, 65537

// key returns the public key that the proof brings, held to the same rules as an issuer's.
func (p *proof) key() (crypto.PublicKey, error) {
	parsed, err := parseJWK(p.jwk)
	if err != nil {
		return nil,
			refuse(InvalidProof,
				"jwk of the proof: kty is unknown or its members are wrong (RFC 7517 §4)")
	}
	key, err := publicKey(parsed)
	if err != nil {
		return nil, refuse(InvalidProof, "jwk of the proof: %v", err)
	}
	// The client chooses the key, and so what it costs to verify its signature.
	if k, ok := key.(*rsa.PublicKey); ok && (k.N.BitLen() > mostProofBits || k.E != proofExponent) {
		return nil, refuse(InvalidProof, "jwk of the proof: RSA key of %d bits with exponent %d, "+
			"expected at most %d bits and exponent %d", k.N.BitLen(), k.E, mostProofBits,
			proofExponent)
	}
	if !algorithms[p.alg].fits(key) {
		return nil,
			refuse(InvalidProof, "jwk of the proof: alg is %s, which does not go with a key of "+
				"this type and curve", p.alg)
	}
	return key, nil
}

// checkFAPI2 applies the FAPI 2.0 profile (§5.3.2.1, §5.4.1), to proofs with a nonce too.
func (p *proof) checkFAPI2(now time.Time) error {
	if !slices.Contains(fapi2Algorithms, p.alg) {
		return refuse(InvalidProof, "alg of the proof is %s, expected one of %s (FAPI 2.0 §5.4.1)",
			p.alg, strings.Join(fapi2Algorithms, ", "))
	}
	if ahead := p.iat.seconds - float64(now.Unix()); ahead > fapi2Ahead.Seconds() {
		return refuse(InvalidProof, "the proof will be made in %s (iat). Do the clocks agree?",
			ago(ahead))
	}
	return nil
}

func (p *proof) checkSignature(key crypto.PublicKey) error {
	if !algorithms[p.alg].prepare(key)(p.signed, p.signature) {
		return refuse(InvalidProof, "the signature of the proof is not that of its jwk")
	}
	return nil
}

// thumbprint names a key (RFC 7638 §3, RFC 8037 §2): the digest of the members that make it, in
// their one spelling. It is made from the very key that verifies, and not from the text that the
// key was read from.
func thumbprint(key crypto.PublicKey) string {
	var members string
	switch key := key.(type) {
	case *rsa.PublicKey:
		members = fmt.Sprintf(`{"e":"%s","kty":"RSA","n":"%s"}`,
			encode(big.NewInt(int64(key.E)).Bytes()), encode(key.N.Bytes()))
	case *ecdsa.PublicKey:
		// 4, x, y; no error, for publicKey has seen that the point is on the curve
		point, _ := key.Bytes()
		x, y := point[1:1+len(point)/2], point[1+len(point)/2:]
		members = fmt.Sprintf(`{"crv":"%s","kty":"EC","x":"%s","y":"%s"}`, key.Params().Name,
			encode(x), encode(y))
	case ed25519.PublicKey:
		members = fmt.Sprintf(`{"crv":"Ed25519","kty":"OKP","x":"%s"}`, encode(key))
	}
	sum := sha256.Sum256([]byte(members))
	return encode(sum[:])
}

func encode(b []byte) string { return base64url.EncodeToString(b) }

// checkRequest: the proof was made for this request (RFC 9449 §4.3, 8 and 9).
func (p *proof) checkRequest(method, url string) error {
	if string(p.htm) != method {
		return refuse(InvalidProof, "htm is %s, and the request's method %s", quote(string(p.htm)),
			quote(method))
	}
	server, path, ok := normalURL(url)
	if !ok {
		return refuse(InvalidProof, "the URL of this server, of which the proof must be, is %s: "+
			"expected an absolute http or https URL", quote(url))
	}
	htuServer, htuPath, ok := normalURL(string(p.htu))
	switch {
	case !ok:
		return refuse(InvalidProof, "htu is not an absolute http or https URL")
	case htuServer != server:
		return refuse(InvalidProof, "htu is a URL of %s, and clients know this server as %s. If "+
			"the client is right, configure the URL under which clients reach the API",
			quote(htuServer), quote(server))
	case withoutDots(htuPath) != path:
		return refuse(InvalidProof, "the path of htu is not that of the request, which is %s",
			quote(path))
	}
	return nil
}

// normalURL writes the many spellings of a URL in one, without query and fragment (RFC 3986 §6.2.2,
// §6.2.3): case of scheme and host, default port, empty path, percent-encoding. It leaves dot
// segments: [withoutDots] is for those that a client has resolved before it sent the request,
// whereas in the path of the request itself they are, to the router, segments like any other.
func normalURL(url string) (server, path string, ok bool) {
	// no URI, and not to be taken for one
	if strings.ContainsFunc(url, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return "", "", false
	}
	url, _, _ = strings.Cut(url, "#")
	url, _, _ = strings.Cut(url, "?")
	scheme, rest, _ := strings.Cut(url, "://")
	scheme = strings.ToLower(scheme)
	unsaid, known := map[string]string{"http": "80", "https": "443"}[scheme]
	host, path, port := rest, "/", ""
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		host, path = rest[:i], rest[i:]
	}
	host = strings.ToLower(host)
	if i := strings.LastIndexByte(host, ':'); i > strings.LastIndexByte(host, ']') {
		host, port = host[:i], host[i+1:]
	}
	bracketed := strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") // RFC 3986 §3.2.2
	if !known || host == "" || strings.Contains(host, "@") || strings.Contains(host, ":") &&
		!bracketed || strings.Trim(port, "0123456789") != "" {
		return "", "", false
	}
	server = scheme + "://" + host
	if port != "" && port != unsaid {
		server += ":" + port
	}
	path, ok = normalEscapes(path)
	return server, path, ok
}

// normalEscapes decodes what need not be encoded, and writes the rest in upper case (RFC 3986
// §6.2.2.1, §6.2.2.2).
func normalEscapes(path string) (string, bool) {
	if !strings.Contains(path, "%") {
		return path, true
	}
	var out strings.Builder
	for rest := path; rest != ""; {
		if rest[0] != '%' {
			out.WriteByte(rest[0])
			rest = rest[1:]
			continue
		}
		if len(rest) < 3 || !isHex(rest[1]) || !isHex(rest[2]) {
			return "", false
		}
		escape := strings.ToUpper(rest[:3])
		if c := unhex(escape[1])<<4 | unhex(escape[2]); isUnreserved(c) {
			out.WriteByte(c)
		} else {
			out.WriteString(escape)
		}
		rest = rest[3:]
	}
	return out.String(), true
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

func unhex(c byte) byte { // of an upper case digit
	if c <= '9' {
		return c - '0'
	}
	return c - 'A' + 10
}

// isUnreserved: RFC 3986 §2.3.
func isUnreserved(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
		strings.IndexByte("-._~", c) >= 0
}

// withoutDots resolves dot segments (RFC 3986 §5.2.4).
func withoutDots(path string) string {
	if !strings.Contains(path, "/.") {
		return path
	}
	var out []string
	segments := strings.Split(path, "/")[1:]
	for i, s := range segments {
		switch {
		case s == "..":
			out = out[:max(len(out)-1, 0)]
		case s != ".":
			out = append(out, s)
			continue
		}
		if i == len(segments)-1 { // what they name is a directory
			out = append(out, "")
		}
	}
	return "/" + strings.Join(out, "/")
}

// checkTime: the proof was made just now (RFC 9449 §4.3, 10 and 11), by its nonce where the server
// gives nonces out, and else by its iat. It returns when that ends.
func (c *proofs) checkTime(p *proof) (end time.Time, err error) {
	now := c.now()
	if c.nonces != nil {
		end, ok := c.nonces.end(p.nonce, now)
		if p.nonce == nil {
			return end,
				refuse(NonceRequired, "the proof has no nonce, and this server asks for one")
		}
		if !ok {
			return end, refuse(NonceRequired, "the proof's nonce is too old, or not one of this "+
				"server. Do the servers share their nonce key?")
		}
		return end, nil
	}
	age := float64(now.UnixNano())/1e9 - p.iat.seconds
	switch window := c.window.Seconds(); {
	case age >= window:
		return end, refuse(InvalidProof, "the proof was made %s ago (iat), and is good for %s. "+
			"Make one for each request. Do the clocks agree?", ago(age), c.window)
	case age <= -window:
		return end, refuse(InvalidProof, "the proof will be made in %s (iat). Do the clocks agree?",
			ago(-age))
	}
	return time.Unix(int64(p.iat.seconds)+1, 0).Add(c.window), nil
}

// use has a proof used up, or reports that it is. end is when it is no longer good in any case;
// servers that share the store may have clocks that differ, so it is remembered for longer.
func (c *proofs) use(ctx context.Context, jkt string, p *proof, end time.Time) error {
	// By key and jti, for a client is free to choose any jti. Not by the proof's own bytes: anybody
	// can write the signature of an ES256 proof in a second way.
	name := sha256.Sum256(append([]byte(jkt+"\x00"), p.jti...))
	fresh, err := c.replays.Use(ctx, encode(name[:]), end.Add(mostLeeway))
	switch {
	case err != nil:
		return &Error{Code: ReplaysUnavailable,
			Detail:     "whether the proof was used before could not be found out",
			RetryAfter: time.Second, Err: err}
	case !fresh:
		return refuse(ProofReplayed,
			"a proof with this jti was used before. Make one for each request")
	}
	return nil
}

// nonces makes and knows nonces without keeping any (RFC 9449 §9): a nonce is a MAC over the number
// of the period that it was made in, the same for all clients. It serves in its own period and the
// next, and in the one before, for servers whose clocks differ.
type nonces struct {
	key    []byte
	period time.Duration
}

func (n *nonces) current(now time.Time) string { return n.of(now.UnixNano() / int64(n.period)) }

func (n *nonces) of(period int64) string {
	mac := hmac.New(sha256.New, n.key)
	mac.Write(binary.BigEndian.AppendUint64([]byte("oasgate DPoP nonce"), uint64(period)))
	return encode(mac.Sum(nil)[:16])
}

// end returns when a nonce ends, if it is one that serves now.
func (n *nonces) end(nonce []byte, now time.Time) (time.Time, bool) {
	this := now.UnixNano() / int64(n.period)
	for period := this - 1; period <= this+1; period++ {
		if hmac.Equal(nonce, []byte(n.of(period))) {
			return time.Unix(0, (period+2)*int64(n.period)), true
		}
	}
	return time.Time{}, false
}
