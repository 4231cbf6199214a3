package token

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/oasgate/oasgate/authz/internal/rates"
)

const (
	defaultWindow, maxWindow = time.Minute, 5 * time.Minute
	minNonceKeyBytes         = 32
	defaultProofLimit        = 10_000
)

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
