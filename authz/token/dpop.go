package token

import (
	"cmp"
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

	"github.com/oasgate/oasgate/authz/internal/rates"
)

// DPoPPolicy says whether an issuer's tokens may, or must, be bound to a key of the client (RFC
// 9449). A bound token is accepted only with a proof, made for the one request, that the client has
// the key.
type DPoPPolicy string

const (
	DPoPOff      DPoPPolicy = "off"      // only bearer tokens
	DPoPAllowed  DPoPPolicy = "allowed"  // bearer tokens, and bound tokens with a proof
	DPoPRequired DPoPPolicy = "required" // only bound tokens with a proof
)

// ProofPolicy says how DPoP proofs are checked. Zero values are the defaults.
type ProofPolicy struct {
	// Window is the largest difference between now and the time of a proof, in either direction.
	// Replays must remember each proof for that long. Default 1 min, at most 5 min.
	Window time.Duration
	// Replays remembers which proofs were used. Several servers must share one. Default: the
	// Predecessor's, or [NewReplayMemory] with room for about 4,000 proofs per second at the
	// default Window.
	Replays ReplayStore
	// Limit is how many proofs of one subject are accepted in a minute, so that a subject cannot
	// fill Replays. Each verifier counts in memory. Default 10,000, of which a [ReplayMemory] with
	// the default capacity has room for three minutes: see [NewReplayMemory].
	Limit int
	// NonceKey, if set, requires proofs to carry a nonce of the server (RFC 9449 §9). Clients then
	// cannot make proofs in advance, and their clocks do not matter, because the time of the nonce
	// is checked instead of iat. It is 32 or more secret bytes, shared by all servers.
	NonceKey []byte
	// Offered announces DPoP to clients although no issuer of Config.Issuers accepts it, for the
	// issuers of Config.Resolve.
	Offered bool
}

const (
	defaultWindow, maxWindow = time.Minute, 5 * time.Minute
	minNonceKeyBytes         = 32
	defaultProofLimit        = 10_000
)

// Proof is what came with a token that is bound to a key (RFC 9449 §7.1).
type Proof struct {
	JWT    string // the value of the DPoP header
	Method string // of the request
	// URL is the absolute URL of the request, with the host that clients use. Query and fragment
	// are ignored.
	URL string
}

// proofs checks proofs.
type proofs struct {
	window  time.Duration
	now     func() time.Time
	replays ReplayStore
	clock   *passedMinutes
	limit   int64
	counts  *rates.Memory // of accepted proofs, by subject
	nonces  *nonces       // nil: not required
}

func newProofs(config Config, now func() time.Time) (*proofs, []error) {
	p := &proofs{
		window: config.Proofs.Window, now: now, replays: config.Proofs.Replays,
		limit: int64(cmp.Or(config.Proofs.Limit, defaultProofLimit)), counts: new(rates.Memory),
		clock: new(passedMinutes),
	}
	if config.Predecessor != nil {
		p.counts, p.clock = config.Predecessor.proofs.counts, config.Predecessor.proofs.clock
	}
	var faults []error
	if p.limit < 0 {
		faults = append(faults,
			fmt.Errorf("token: Proofs.Limit is %d: expected a positive number", p.limit))
	}
	if p.window == 0 {
		p.window = defaultWindow
	}
	if p.window < 0 || p.window > maxWindow {
		faults = append(faults,
			fmt.Errorf("token: Proofs.Window is %s: expected a positive duration of at most %s",
				p.window, maxWindow))
	}
	fapi2 := func(i Issuer) bool { return i.FAPI2 }
	if p.window > fapi2Ahead && slices.ContainsFunc(config.Issuers, fapi2) {
		faults = append(faults, fmt.Errorf("token: Proofs.Window is %s: expected at most %s for "+
			"issuers of the profile FAPI 2.0 (§5.3.2.1)", p.window, fapi2Ahead))
	}
	if key := config.Proofs.NonceKey; key != nil {
		if len(key) < minNonceKeyBytes {
			faults = append(faults,
				fmt.Errorf("token: Proofs.NonceKey has %d bytes: expected at least %d, random "+
					"and secret", len(key), minNonceKeyBytes))
		}
		p.nonces = &nonces{slices.Clone(key), p.window}
	}
	switch {
	case p.replays != nil:
	case config.Predecessor != nil:
		// With a new store, used proofs would be accepted again.
		p.replays = config.Predecessor.proofs.replays
	default:
		p.replays = NewReplayMemory(defaultReplays, now)
	}
	return p, faults
}

// DPoPOffer is what a server announces to its clients about DPoP.
type DPoPOffer struct {
	Algorithms []string // the algorithms of proofs; nil if DPoP is off
	Required   bool     // no token is accepted as a bearer token
	Nonce      string   // for the next proof; "" if nonces are not required
}

// DPoP returns what to announce to clients. DPoP is on if some issuer's policy is not off.
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

// ProofAlgorithms returns the allow-list for proofs. It is the same for every issuer, because the
// key is the client's.
func ProofAlgorithms() []string { return []string{"ES256", "EdDSA", "PS256", "RS256"} }

// VerifyDPoP returns the principal of a genuine token that is bound to the key of the proof: see
// [Verifier.VerifyPresented].
func (v *Verifier) VerifyDPoP(ctx context.Context, token string, proof Proof) (*Principal, error) {
	return v.VerifyPresented(ctx, Presented{Token: token, Proof: &proof})
}

// verifyProved verifies a token that came with a DPoP proof.
func (v *Verifier) verifyProved(ctx context.Context, presented Presented) (*verifiedToken, error) {
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

	proven := possession{dpop: true, certificate: presented.certificate()}
	known, err := v.verifyHere(ctx, presented.Token, proven)
	if err != nil {
		return nil, err
	}
	issuer := v.opaque
	if known != nil {
		issuer = known.issuer
	}
	if issuer.FAPI2 {
		if err := p.checkFAPI2(v.now()); err != nil {
			return nil, err
		}
	}

	// Compare the key with the token before it verifies a signature, so that only clients with a
	// genuine token can cause that cost. Verify the signature before the issuer is asked about the
	// token, which costs more.
	key, err := p.key()
	if err != nil {
		return nil, err
	}
	jkt := thumbprint(key)
	if known != nil && jkt != known.binding.jkt {
		return nil, errOtherKey()
	}
	if err := p.checkSignature(key); err != nil {
		return nil, err
	}
	end, err := v.proofs.checkTime(p)
	if err != nil {
		return nil, err
	}
	if known, err = v.introspect(ctx, presented, known, proven); err != nil {
		return nil, err
	}
	if jkt != known.binding.jkt { // of an opaque token
		return nil, errOtherKey()
	}
	// Last, so that only proofs that pass all other checks take room in the store.
	if err := v.proofs.use(ctx, known, p, end); err != nil {
		return nil, err
	}
	return known, nil
}

func errOtherKey() error {
	return refuse(Bound, "the token is bound to a key (cnf.jkt) other than the one that signed "+
		"the proof")
}

// ProofThumbprint is for authorization servers (RFC 9449 §5): it checks the proof of a token
// request, and returns the thumbprint for the token's cnf.jkt, and the proof's jti, which the
// server must accept only once.
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

// proof is a parsed, unverified DPoP proof (RFC 9449 §4.2).
type proof struct {
	compact
	alg                       string
	jwk                       jsontext.Value
	htm, htu, jti, ath, nonce []byte // nil when absent
	iat                       numericDate
}

// maxJTIBytes bounds the jti of a proof; a UUID takes 36 bytes.
const maxJTIBytes = 256

// parseProof parses a proof and makes the checks 2 to 7 of RFC 9449 §4.3, except the signature.
func parseProof(jwt string) (*proof, error) {
	fail := func(format string, args ...any) (*proof, error) {
		return nil, refuse(InvalidProof, format, args...)
	}
	if len(jwt) > maxTokenBytes {
		return fail("the proof has %d bytes, more than the limit of %d", len(jwt), maxTokenBytes)
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
	case len(p.jti) == 0 || len(p.jti) > maxJTIBytes:
		return fmt.Errorf("jti has %d bytes, expected 1 to %d", len(p.jti), maxJTIBytes)
	}
	return nil
}

// checkPublic checks that a JWK has no private or symmetric parts (RFC 9449 §4.3, 7).
func checkPublic(key jsontext.Value) error {
	if key == nil {
		return errors.New("it is missing: expected the public key that verifies the proof")
	}
	return eachMember(key, func(name []byte, _ jsontext.Value) error {
		switch string(name) {
		case "d", "p", "q", "dp", "dq", "qi", "oth", "k":
			// RFC 7518 §6.2.2, §6.3.2, §6.4.1, RFC 8037 §2
			return errors.New("it holds the private or symmetric key. The client must send the " +
				"public key only, and replace this key")
		}
		return nil
	})
}

// maxProofBits and proofExponent bound the cost of verifying a proof.
const maxProofBits, proofExponent = 4096, 65537

// key returns the public key in the proof, checked like an issuer's.
func (p *proof) key() (crypto.PublicKey, error) {
	parsed, err := parseJWK(p.jwk)
	if err != nil {
		return nil, refuse(InvalidProof, "jwk of the proof: kty is unknown or its members are "+
			"wrong (RFC 7517 §4)")
	}
	key, err := publicKey(parsed)
	if err != nil {
		return nil, refuse(InvalidProof, "jwk of the proof: %v", err)
	}
	// The client chooses the key, and so the cost of verifying its signature.
	if k, ok := key.(*rsa.PublicKey); ok && (k.N.BitLen() > maxProofBits || k.E != proofExponent) {
		return nil, refuse(InvalidProof, "jwk of the proof: RSA key of %d bits with exponent %d, "+
			"expected at most %d bits and exponent %d", k.N.BitLen(), k.E, maxProofBits,
			proofExponent)
	}
	if !algorithms[p.alg].fits(key) {
		return nil, refuse(InvalidProof, "jwk of the proof: alg is %s, which does not fit a key "+
			"of this type and curve", p.alg)
	}
	return key, nil
}

// checkFAPI2 applies the FAPI 2.0 profile (§5.3.2.1, §5.4.1), including to proofs with a nonce.
func (p *proof) checkFAPI2(now time.Time) error {
	if !slices.Contains(fapi2Algorithms, p.alg) {
		return refuse(InvalidProof, "alg of the proof is %s, expected one of %s (FAPI 2.0 §5.4.1)",
			p.alg, strings.Join(fapi2Algorithms, ", "))
	}
	if ahead := p.iat.seconds - float64(now.Unix()); ahead > fapi2Ahead.Seconds() {
		return refuse(InvalidProof, "iat of the proof is %s in the future. Do the clocks agree?",
			formatSeconds(ahead))
	}
	return nil
}

func (p *proof) checkSignature(key crypto.PublicKey) error {
	if !algorithms[p.alg].prepare(key)(p.signed, p.signature) {
		return refuse(InvalidProof, "the signature of the proof does not verify with its jwk")
	}
	return nil
}

// thumbprint returns the JWK thumbprint of a key (RFC 7638 §3, RFC 8037 §2). It is computed from
// the parsed key that verifies the signature, not from the received text.
func thumbprint(key crypto.PublicKey) string {
	var members string
	switch key := key.(type) {
	case *rsa.PublicKey:
		members = fmt.Sprintf(`{"e":"%s","kty":"RSA","n":"%s"}`,
			encode(big.NewInt(int64(key.E)).Bytes()), encode(key.N.Bytes()))
	case *ecdsa.PublicKey:
		// 4, x, y; there is no error, because publicKey has checked the point
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

// checkRequest checks that the proof was made for this request (RFC 9449 §4.3, 8 and 9).
func (p *proof) checkRequest(method, url string) error {
	if string(p.htm) != method {
		return refuse(InvalidProof, "htm is %s, expected the method of the request, %s",
			quote(string(p.htm)), quote(method))
	}
	server, path, ok := normalURL(url)
	if !ok {
		return refuse(InvalidProof, "the URL of the request is %s, so htu cannot be checked: "+
			"expected an absolute http or https URL", quote(url))
	}
	htuServer, htuPath, ok := normalURL(string(p.htu))
	switch {
	case !ok:
		return refuse(InvalidProof, "htu is not an absolute http or https URL")
	case htuServer != server:
		return refuse(InvalidProof, "htu is a URL of %s, expected %s. If the client is right, "+
			"configure the URL at which clients reach the API", quote(htuServer), quote(server))
	case removeDotSegments(htuPath) != path:
		return refuse(InvalidProof, "the path of htu differs from that of the request, which is %s",
			quote(path))
	}
	return nil
}

// normalURL normalizes a URL (RFC 3986 §6.2.2, §6.2.3) without query and fragment: case of scheme
// and host, default port, empty path, percent-encoding. It does not remove dot segments, because to
// the router those in the path of a request are ordinary segments. A client removes them before it
// sends the request: for htu, see removeDotSegments.
func normalURL(url string) (server, path string, ok bool) {
	if strings.ContainsFunc(url, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return "", "", false
	}
	url, _, _ = strings.Cut(url, "#")
	url, _, _ = strings.Cut(url, "?")
	scheme, rest, _ := strings.Cut(url, "://")
	scheme = strings.ToLower(scheme)
	defaultPort, known := map[string]string{"http": "80", "https": "443"}[scheme]
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
	if port != "" && port != defaultPort {
		server += ":" + port
	}
	path, ok = normalEscapes(path)
	return server, path, ok
}

// normalEscapes decodes escaped unreserved characters, and writes other escapes in upper case (RFC
// 3986 §6.2.2.1, §6.2.2.2).
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

// unhex returns the value of an upper case hexadecimal digit.
func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c - 'A' + 10
}

// isUnreserved reports whether c is unreserved (RFC 3986 §2.3).
func isUnreserved(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
		strings.IndexByte("-._~", c) >= 0
}

// removeDotSegments implements RFC 3986 §5.2.4.
func removeDotSegments(path string) string {
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
		if i == len(segments)-1 { // a trailing dot segment leaves a trailing slash
			out = append(out, "")
		}
	}
	return "/" + strings.Join(out, "/")
}

// checkTime checks that the proof is recent (RFC 9449 §4.3, 10 and 11), by its nonce if the server
// requires one, else by its iat. It returns when the proof ends.
func (c *proofs) checkTime(p *proof) (end time.Time, err error) {
	now := c.now()
	if c.nonces != nil {
		end, ok := c.nonces.end(p.nonce, now)
		if p.nonce == nil {
			return end,
				refuse(NonceRequired, "the proof has no nonce, and this server requires one")
		}
		if !ok {
			return end, refuse(NonceRequired, "the nonce of the proof is too old, or was not "+
				"issued by this server. Do the servers share their nonce key?")
		}
		return end, nil
	}
	age := float64(now.UnixNano())/1e9 - p.iat.seconds
	switch window := c.window.Seconds(); {
	case age >= window:
		return end, refuse(InvalidProof, "the proof was made %s ago (iat), expected at most %s. "+
			"Make one for each request. Do the clocks agree?", formatSeconds(age), c.window)
	case age <= -window:
		return end, refuse(InvalidProof, "iat of the proof is %s in the future. Do the clocks "+
			"agree?", formatSeconds(-age))
	}
	return time.Unix(int64(p.iat.seconds)+1, 0).Add(c.window), nil
}

// use records a proof as used, or fails if it was used before.
func (c *proofs) use(ctx context.Context, by *verifiedToken, p *proof, end time.Time) error {
	now := c.now()
	until := now.Truncate(time.Minute).Add(time.Minute)
	issuer, caller := by.principal.Issuer(), by.caller()
	// Counted before the store is asked, so that concurrent proofs do not exceed the limit.
	if c.counts.Add(issuer, caller, 1, now, until) > c.limit {
		c.counts.Add(issuer, caller, -1, now, until)
		return &Error{Code: ProofLimit, RetryAfter: until.Sub(now),
			Detail: fmt.Sprintf("the subject has sent %d proofs in this minute", c.limit)}
	}
	fresh, err := c.remember(ctx, by, p, end, now)
	if fresh && err == nil {
		return nil
	}
	// Replays do not count, so that an attacker with a proof cannot use up the subject's limit.
	c.counts.Add(issuer, caller, -1, now, until)
	switch {
	case errors.Is(err, errReplayShare):
		return &Error{Code: ProofLimit, RetryAfter: time.Second, Err: err,
			Detail: "the subject has sent too many proofs"}
	case err != nil:
		return &Error{Code: ReplaysUnavailable,
			Detail:     "could not check whether the proof was used before",
			RetryAfter: time.Second, Err: err}
	}
	return refuse(ProofReplayed, "a proof with this jti was used before. Make one for each request")
}

// caller returns the name by which proofs are counted. It says of what it is the name, so that a
// client cannot use up the limit of the subject of the same name.
func (t *verifiedToken) caller() string {
	if subject := t.principal.Subject(); subject != "" {
		return "subject:" + subject
	}
	if client := t.principal.ClientID(); client != "" {
		return "client:" + client
	}
	return "key:" + t.binding.jkt
}

// remember reports whether a proof is fresh, and stores it as used. It is stored for longer than
// it is valid, because the clocks of servers that share the store may differ.
func (c *proofs) remember(
	ctx context.Context, by *verifiedToken, p *proof, end, now time.Time,
) (fresh bool, err error) {
	until := end.Add(maxLeeway)
	skip := 3*c.window + 2*maxLeeway // a nonce is valid for less than 3 windows
	if c.clock.passed(now, until, skip) {
		return false, errors.New("token: the clock was set back, so Proofs.Replays can have " +
			"forgotten DPoP proofs of this time. Those of a later time are accepted. Does the " +
			"clock jump?")
	}
	// The key is in the name because clients choose jti freely. The bytes of the proof are not,
	// because the signature of an ES256 proof can be rewritten into a second valid one.
	name := sha256.Sum256(append([]byte(by.binding.jkt+"\x00"), p.jti...))
	return c.replays.Use(ctx, encode(name[:]), by.principal.Issuer()+" "+by.caller(), until)
}

// nonces issues and checks nonces (RFC 9449 §9) without state: a nonce is a MAC over the number of
// its period, the same for all clients. It is valid in its period and the next, and, for servers
// whose clocks differ, in the previous one.
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

// end returns when a nonce ends, if it is valid now.
func (n *nonces) end(nonce []byte, now time.Time) (time.Time, bool) {
	this := now.UnixNano() / int64(n.period)
	for period := this - 1; period <= this+1; period++ {
		if hmac.Equal(nonce, []byte(n.of(period))) {
			return time.Unix(0, (period+2)*int64(n.period)), true
		}
	}
	return time.Time{}, false
}
