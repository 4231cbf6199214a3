package main

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/oasgate/oasgate/authz/token"
)

type explainCommand struct {
	Document   string        `required:"" help:"OpenAPI document whose operations the token may call."`
	Issuer     string        `required:"" env:"OASGATE_ISSUER" help:"Issuer that the server trusts, identical to the iss claim."`
	Audience   []string      `required:"" env:"OASGATE_AUDIENCE" help:"Identifiers of the API, separated by commas; the aud claim must contain one."`
	Algorithms []string      `env:"OASGATE_ALGORITHMS" help:"Signature algorithms that the server accepts, separated by commas. Default: those of the library."`
	Leeway     time.Duration `default:"30s" env:"OASGATE_LEEWAY" help:"Accepted difference between clocks."`
	ScopeClaim []string      `default:"/scope" help:"JSON pointers to the claims that grant scopes, separated by commas."`
	RFC9068    bool          `name:"rfc9068" help:"Require the strict profile of RFC 9068."`

	IntrospectionClientID     string `env:"OASGATE_INTROSPECTION_CLIENT_ID" help:"Client ID for asking the issuer whether the token is active (RFC 7662). Required for tokens that are not JWTs."`
	IntrospectionClientSecret string `env:"OASGATE_INTROSPECTION_CLIENT_SECRET" help:"Secret of the client. Prefer the environment: arguments are visible to other users."`
	Certificate               string `help:"PEM file of the client's certificate, for tokens that are bound to it (RFC 8705)."`

	Token string `arg:"" optional:"" help:"The token. Prefer standard input (no argument, or -): arguments are visible to other users."`
}

// explanation is the result of explain, for programs. Of the token, it holds only what its claims
// say.
type explanation struct {
	Genuine bool   `json:"genuine"`
	Check   string `json:"check,omitempty"`  // that failed: a token.Code
	Detail  string `json:"detail,omitempty"` // what was expected, what was received
	Hint    string `json:"hint,omitempty"`

	Issuer     string               `json:"issuer,omitempty"`
	Subject    string               `json:"subject,omitempty"`
	Client     string               `json:"client,omitempty"`
	Actor      string               `json:"actor,omitempty"`  // who acts for the subject (RFC 8693)
	Active     bool                 `json:"active,omitempty"` // according to the issuer (RFC 7662)
	Expiry     *time.Time           `json:"expiry,omitempty"`
	Scopes     []string             `json:"scopes,omitempty"`
	Operations []explainedOperation `json:"operations,omitempty"`
}

// explainedOperation is an operation, and whether the token grants access to it.
type explainedOperation struct {
	ID     string `json:"operationId"`
	Method string `json:"method"`
	Path   string `json:"path"`
	Access string `json:"access"`
	Opens  bool   `json:"opens"`
	// Introspect: the server also asks the issuer whether the token is active.
	Introspect bool     `json:"introspect,omitempty"`
	Missing    []string `json:"missing,omitempty"` // scopes, credentials other than a token, a sign-in
}

func (c *explainCommand) Run(ctx context.Context, t *tool) error {
	doc, err := t.load(ctx, c.Document, securityPart, false)
	if err != nil {
		return err
	}
	raw, removed, err := c.read(t.stdin)
	if err != nil {
		return err
	}
	if removed != nil {
		t.printError("removed what was pasted along with the token: " + strings.Join(removed, ", "))
	}
	clock := &issuerClock{now: t.now}
	verifier, err := token.NewVerifier(ctx, c.config(clock))
	if err != nil {
		return err
	}
	certificate, err := readCertificate(c.Certificate)
	if err != nil {
		return fmt.Errorf("--certificate: %w", err)
	}
	var e explanation
	principal, err := verifier.VerifyPresented(ctx, token.Presented{
		Token: raw, Certificate: certificate,
	})
	refused, ok := errors.AsType[*token.Error](err)
	switch {
	case err == nil:
		e = accepted(principal, describe(doc, credentials(doc)), t.now())
		e.Hint = scopesElsewhere(principal, e, c.ScopeClaim)
		e.Active = c.IntrospectionClientID != ""
	case ok && refused.Code != token.KeysUnavailable &&
		refused.Code != token.IntrospectionUnavailable:
		e = explanation{
			Check:  string(refused.Code),
			Detail: refused.Detail,
			Hint:   c.hint(ctx, refused.Code, raw, verifier, clock),
		}
	default:
		return fmt.Errorf("cannot verify the token: %w", err)
	}
	if err := t.writeResult(e, func(p page) { p.writeExplanation(e, t.now()) }); err != nil {
		return err
	}
	if !e.Genuine {
		return errFound
	}
	return nil
}

func (c *explainCommand) config(clock *issuerClock) token.Config {
	leeway := c.Leeway
	if leeway == 0 {
		leeway = token.NoLeeway
	}
	issuer := token.Issuer{
		URL: c.Issuer, Audiences: c.Audience, Algorithms: c.Algorithms, Leeway: leeway,
		ScopeClaims: c.ScopeClaim, RFC9068: c.RFC9068,
	}
	if c.IntrospectionClientID != "" {
		issuer.Introspection = token.Introspection{
			ClientID: c.IntrospectionClientID, ClientSecret: c.IntrospectionClientSecret,
			Opaque: true, Always: true, MaxAge: token.NoAge,
		}
	}
	if c.Certificate != "" {
		issuer.MTLS = token.MTLSAllowed
	}
	return token.Config{
		Issuers:    []token.Issuer{issuer},
		HTTPClient: &http.Client{Transport: clock},
		Now:        clock.now,
		Logger:     slog.New(slog.DiscardHandler), // errors are returned
	}
}

// readCertificate reads the first certificate of a PEM file, or returns nil if there is no file.
func readCertificate(name string) (*x509.Certificate, error) {
	if name == "" {
		return nil, nil
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, fmt.Errorf("%s: expected a certificate in PEM", name)
	}
	return x509.ParseCertificate(block.Bytes)
}

// read returns the token, and the names of what was pasted along with it.
func (c *explainCommand) read(stdin io.Reader) (raw string, removed []string, err error) {
	raw = c.Token
	if raw == "" || raw == standardInput {
		if raw, err = readTokenFile(standardInput, stdin); err != nil {
			return "", nil, fmt.Errorf("cannot read the token from standard input: %w", err)
		}
	}
	if raw, removed = cleanToken(raw); raw == "" {
		return "", nil, errors.New(
			"no token: give one on standard input, or as the argument",
		)
	}
	return raw, removed, nil
}

// cleanToken removes what is often pasted along with a token, and names it. Servers would refuse
// the token with it.
func cleanToken(text string) (raw string, removed []string) {
	raw = strings.TrimSpace(text)
	note := func(what string) {
		if !slices.Contains(removed, what) {
			removed = append(removed, what)
		}
	}
	for before := ""; before != raw; {
		before = raw
		for _, prefix := range []string{"Authorization:", "Bearer ", "DPoP "} {
			if len(raw) > len(prefix) && strings.EqualFold(raw[:len(prefix)], prefix) {
				raw = strings.TrimSpace(raw[len(prefix):])
				note(strings.TrimSpace(prefix))
			}
		}
		for _, quote := range []string{`"`, "'", "`"} {
			if len(raw) >= 2 && strings.HasPrefix(raw, quote) && strings.HasSuffix(raw, quote) {
				raw = strings.TrimSpace(raw[1 : len(raw)-1])
				note("quotes")
			}
		}
	}
	if joined := strings.NewReplacer("\r", "", "\n", "", `\n`, "").Replace(raw); joined != raw {
		raw = joined
		note("newlines")
	}
	return raw, removed
}

func accepted(p *token.Principal, operations []operation, now time.Time) explanation {
	expiry := p.Expiry().UTC()
	e := explanation{
		Genuine: true, Issuer: p.Issuer(), Subject: p.Subject(), Client: p.ClientID(),
		Expiry: &expiry, Scopes: p.Scopes(),
	}
	if actor, ok := p.Actor(); ok {
		e.Actor = cmp.Or(actor.Subject, actor.ClientID, "unnamed")
	}
	for _, o := range operations {
		lacks := o.access.missing(
			func(a atom) bool {
				return a.credential == bearer && (a.scope == "" || p.HasScope(a.scope))
			},
		)
		explained := explainedOperation{
			ID:     o.ID,
			Method: o.Method,
			Path:   o.Path,
			Access: o.access.String(), Introspect: o.Introspect,
		}
		for _, a := range lacks {
			if a.credential == bearer ||
				a.scope == "" { // other credentials have no scopes
				explained.Missing = append(explained.Missing, cmp.Or(a.scope, a.credential))
			}
		}
		if !o.access.stepUp.Met(p, now) {
			explained.Missing = append(explained.Missing, "having "+signIn(o.access.stepUp))
		}
		explained.Opens = explained.Missing == nil
		e.Operations = append(e.Operations, explained)
	}
	return e
}

// scopesElsewhere looks for the missing scopes in other claims that issuers use for scopes.
func scopesElsewhere(p *token.Principal, e explanation, configured []string) string {
	var missing []string
	for _, o := range e.Operations {
		missing = append(missing, o.Missing...)
	}
	for _, pointer := range []string{"/scope", "/scp", "/scopes", "/permissions", "/roles",
		"/realm_access/roles"} {
		list, err := token.Claim[[]string](p, pointer)
		if err != nil {
			joined, _ := token.Claim[string](p, pointer)
			list = strings.Fields(joined)
		}
		if slices.Contains(configured, pointer) {
			continue
		}
		for _, scope := range list {
			if slices.Contains(missing, scope) {
				return fmt.Sprintf(
					"the token has %s in the claim %s, but scopes are read from %s: have the "+
						"issuer put them there, or the server read them from %s too "+
						"(--scope-claim here)",
					scope,
					pointer[1:],
					strings.Join(configured, ", "),
					pointer,
				)
			}
		}
	}
	return ""
}

// hint returns the probable cause, if the failed check does not name it.
func (c *explainCommand) hint(
	ctx context.Context,
	code token.Code,
	raw string,
	verifier *token.Verifier,
	clock *issuerClock,
) string {
	claims := unverified(raw)
	switch code {
	case token.WrongIssuer:
		if "s"+strings.TrimPrefix(claims.Issuer, "http") == strings.TrimPrefix(c.Issuer, "http") ||
			strings.TrimPrefix(claims.Issuer, "http") == "s"+strings.TrimPrefix(c.Issuer, "http") {
			return "they differ only in http and https: configure the issuer exactly as it " +
				"names itself"
		}
	case token.WrongAlgorithm:
		if strings.HasPrefix(claims.alg, "HS") {
			return "the issuer signs with a shared secret: have it sign tokens for this API with " +
				"RS256 or another asymmetric algorithm"
		}
	case token.WrongAudience:
		return c.audienceHint(claims)
	case token.Malformed:
		if claims.alg == "" && c.IntrospectionClientID == "" {
			return "if it is not meant to be a JWT, the issuer must be asked: give " +
				"--introspection-client-id"
		}
	case token.Bound:
		switch {
		case claims.Confirmation.Certificate != "":
			return "the client must present its certificate in the TLS handshake (RFC 8705 §3): " +
				"give it here as --certificate"
		case claims.Confirmation.Thumbprint != "":
			return "the client must send it by the DPoP scheme, with a proof for each request " +
				"(RFC 9449 §7.1)"
		}
	case token.UnknownKey:
		return "is it a token of another environment of this issuer, or older than its last " +
			"change of keys? Get a new one"
	case token.Expired, token.NotYetValid, token.TooLongLived:
		// The check needed no keys of the issuer, but the hint needs its clock.
		if verifier.Ready(ctx) == nil {
			return clock.hint()
		}
	}
	return ""
}

func (c *explainCommand) audienceHint(claims unverifiedClaims) string {
	for _, audience := range claims.Audience {
		for _, ours := range c.Audience {
			if strings.TrimSuffix(audience, "/") == strings.TrimSuffix(ours, "/") {
				return "they differ only in a trailing slash"
			}
		}
	}
	switch {
	case len(claims.Audience) == 1 && claims.Audience[0] == claims.AuthorizedParty:
		// OpenID Connect Core §2: the audience of an ID token is the client.
		return "this looks like an ID token, because its audience is the client that requested " +
			"it: send the access token instead"
	case slices.ContainsFunc(claims.Audience, func(a string) bool {
		return strings.HasSuffix(a, "/userinfo")
	}):
		return "the client did not request this API's audience: have it request " + c.Audience[0]
	}
	return ""
}

// unverifiedClaims are the claims of a token that was refused. They are used for hints only.
type unverifiedClaims struct {
	alg             string
	Issuer          string `json:"iss"`
	Audience        texts  `json:"aud"`
	AuthorizedParty string `json:"azp"`
	Confirmation    struct {
		Thumbprint  string `json:"jkt"`
		Certificate string `json:"x5t#S256"`
	} `json:"cnf"`
	Scope texts `json:"scope"`
	SCP   texts `json:"scp"`
}

// scopes returns the scopes in all claims that issuers use for them.
func (c unverifiedClaims) scopes() (all []string) {
	for _, claim := range append(c.Scope, c.SCP...) {
		all = append(all, strings.Fields(claim)...)
	}
	return all
}

// texts is a string or an array of strings (RFC 7519 §4.1.3).
type texts []string

func (a *texts) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		*a = texts{one}
		return nil
	}
	return json.Unmarshal(data, (*[]string)(a))
}

func unverified(raw string) (claims unverifiedClaims) {
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return claims
	}
	var header struct {
		Alg string `json:"alg"`
	}
	for i, into := range []any{&header, &claims} {
		if b, err := base64.RawURLEncoding.DecodeString(parts[i]); err == nil {
			_ = json.Unmarshal(b, into) // without claims there is no hint
		}
	}
	claims.alg = header.Alg
	return claims
}

// issuerClock is a transport to the issuer that reads its clock from responses (RFC 9110 §6.6.1).
type issuerClock struct {
	now  func() time.Time
	fast time.Duration // how far this machine's clock is ahead
}

func (c *issuerClock) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := http.DefaultTransport.RoundTrip(r)
	if err == nil {
		if date, err := http.ParseTime(response.Header.Get("Date")); err == nil {
			c.fast = c.now().Sub(date)
		}
	}
	return response, err
}

func (c *issuerClock) hint() string {
	off, how := c.fast, "ahead of"
	if off < 0 {
		off, how = -off, "behind"
	}
	if off < 3*time.Second { // dates are whole seconds, and answers take time
		return ""
	}
	return fmt.Sprintf("this machine's clock is %s %s the issuer's", off.Round(time.Second), how)
}

func (p page) writeExplanation(e explanation, now time.Time) {
	row := func(name, value string, c colour) []cell { return []cell{{name, bold}, {value, c}} }
	rows := [][]cell{row("genuine", "yes", green)}
	if !e.Genuine {
		rows = [][]cell{
			row("genuine", "no", red),
			row("failed check", e.Check, ""),
			row("why", e.Detail, ""),
		}
	} else {
		client, scopes := cmp.Or(e.Client, "none"), cmp.Or(strings.Join(e.Scopes, " "), "none")
		rows = append(rows, row("issuer", e.Issuer, ""), row("subject", e.Subject, ""),
			row("client", client, ""))
		if e.Actor != "" {
			rows = append(rows, row("actor", e.Actor, ""))
		}
		if e.Active {
			rows = append(rows, row("active", "according to the issuer", ""))
		}
		rows = append(rows,
			row("expires", fmt.Sprintf("%s, in %s", e.Expiry.Format(time.RFC3339),
				e.Expiry.Sub(now).Round(time.Second)), ""),
			row("scopes", scopes, ""))
	}
	if e.Hint != "" {
		rows = append(rows, row("hint", e.Hint, yellow))
	}
	p.table("", p.wrap(rows, 1))
	if !e.Genuine {
		return
	}
	p.line("")
	rows = [][]cell{
		{{"OPENS", bold}, {"METHOD", bold}, {"PATH", bold}, {"OPERATION", bold}, {"ACCESS", bold}},
	}
	opens := 0
	for _, o := range e.Operations {
		mark, access := cell{"yes", green}, o.Access
		if o.Introspect && !e.Active {
			access += "; if the issuer says that it is active"
		}
		if o.Opens {
			opens++
		} else {
			mark, access = cell{"no", red}, access+": it lacks "+strings.Join(o.Missing, " and ")
		}
		rows = append(rows, append([]cell{mark}, plain(o.Method, o.Path, o.ID, access)...))
	}
	p.table("", p.wrap(rows, 4))
	p.line("")
	p.line("grants access to %d of %s", opens, count(len(e.Operations), "operation"))
}
