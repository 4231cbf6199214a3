package authz

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/oasgate/oasgate/authz/internal/rates"
)

// RateLimit is the maximum number of requests of an operation that a caller may send in a window.
// Windows are aligned to the clock: a limit of 100/min restarts every minute, so a caller can send
// twice as many requests within a short time around the start of a minute.
type RateLimit struct {
	Requests int64
	Window   time.Duration
}

// rateUnits are the windows of x-authz-rate-limit.
var rateUnits = map[string]time.Duration{
	"s": time.Second, "min": time.Minute, "h": time.Hour, "d": 24 * time.Hour,
}

// ParseRateLimit reads a limit, as in x-authz-rate-limit: 100/min.
func ParseRateLimit(text string) (RateLimit, error) {
	count, unit, _ := strings.Cut(text, "/")
	n, err := strconv.ParseInt(count, 10, 32)
	if window, ok := rateUnits[unit]; ok && err == nil && n > 0 {
		return RateLimit{n, window}, nil
	}
	return RateLimit{}, fmt.Errorf(
		"rate limit %q: expected a number above 0 per s, min, h or d, such as 100/min", text)
}

func readRateLimit(o *Operation, value any) bool {
	text, _ := value.(string)
	limit, err := ParseRateLimit(text)
	o.RateLimit = limit
	return err == nil
}

// RateCounter counts requests, for servers that share their limits.
type RateCounter interface {
	// Count adds 1 to the count of a key and returns it. A new count starts at 0, and expires at
	// until.
	Count(ctx context.Context, key string, until time.Time) (int64, error)
}

// rateLimiter counts requests with [Config.RateCounter], or in memory if it is nil or fails.
type rateLimiter struct {
	shared RateCounter // nil: none
	refuse bool        // refuse requests while shared fails
	local  rates.Memory
	resume atomic.Int64 // when to use shared again after a failure, in Unix ns
}

// rateRetry is how long a shared counter is not used after it has failed. Otherwise, each request
// would wait for its timeout.
const rateRetry = 5 * time.Second

// rate is the state of a caller in a window.
type rate struct {
	limit RateLimit // Requests 0: no limit
	left  int64
	reset time.Duration // until the window ends
}

// limitRate counts a request of an operation with a limit, and refuses it if it exceeds the limit.
func (g *Gate) limitRate(a *Admission, r *http.Request, op *operation) error {
	limit := op.RateLimit
	if limit.Requests == 0 {
		return nil
	}
	now := g.now()
	until := now.Truncate(limit.Window).Add(limit.Window)
	n, err := g.countRate(r.Context(), op.Method+" "+op.Path, g.caller(a, r), now, until)
	if err != nil {
		return &Error{Kind: Unavailable, RetryAfter: rateRetry,
			Err: fmt.Errorf("the rate limit cannot be checked: %w", err)}
	}
	a.rate = rate{limit, max(0, limit.Requests-n), until.Sub(now)}
	if n > limit.Requests {
		return &Error{Kind: RateLimited, RetryAfter: a.rate.reset, rate: a.rate}
	}
	return nil
}

// countRate counts a request.
func (g *Gate) countRate(
	ctx context.Context, operation, caller string, now, until time.Time,
) (int64, error) {
	if g.rates.shared == nil {
		return g.rates.local.Add(operation, caller, 1, now, until), nil
	}
	failing := g.rates.resume.Load()
	var err error
	// more than rateRetry if the clock was set back
	if wait := time.Duration(failing - now.UnixNano()); wait <= 0 || wait > rateRetry {
		window := strconv.FormatInt(until.Unix(), 10)
		key := strings.Join([]string{operation, caller, window}, "\x00")
		var n int64
		if n, err = g.rates.shared.Count(ctx, key, until); err == nil {
			if failing != 0 && g.rates.resume.CompareAndSwap(failing, 0) {
				g.logger.Info("rate limits are shared again")
			}
			return n, nil
		}
		if ctx.Err() == nil { // the client has not closed the connection
			g.rates.resume.Store(now.Add(rateRetry).UnixNano())
			if failing == 0 {
				g.logger.Error("rate limits cannot be shared", "cause", err.Error(),
					"requests_are_refused", g.rates.refuse)
			}
		}
	}
	if g.rates.refuse {
		if err == nil {
			err = fmt.Errorf("the shared counter has failed less than %s ago", rateRetry)
		}
		return 0, err
	}
	return g.rates.local.Add(operation, caller, 1, now, until), nil
}

// caller returns the key by which a request is counted: the principal or, without one, the network.
func (g *Gate) caller(a *Admission, r *http.Request) string {
	if p := a.Principal; p != nil {
		// not by client if there is a subject, because some issuers let anyone register clients
		kind, name := "subject", p.Subject()
		if name == "" {
			kind, name = "client", p.ClientID()
		}
		return strings.Join([]string{kind, p.Issuer(), name}, "\x00")
	}
	return "address\x00" + g.network(r, hostBits)
}

// hostBits is the length of the IPv6 prefix of a host's network, and siteBits that of the largest
// network that a site usually gets (RFC 6177).
const hostBits, siteBits = 64, 48

// network returns the network of a client: an IPv4 address, or an IPv6 prefix of so many bits.
func (g *Gate) network(r *http.Request, bits int) string {
	address := r.RemoteAddr
	if g.clientAddress != nil {
		address = g.clientAddress(r)
	} else if host, _, err := net.SplitHostPort(address); err == nil {
		address = host
	}
	if ip, err := netip.ParseAddr(address); err == nil && !ip.Unmap().Is4() {
		network, _ := ip.WithZone("").Prefix(bits)
		address = network.String()
	}
	return address
}

// setHeaders sets RateLimit-Policy and RateLimit (draft-ietf-httpapi-ratelimit-headers-10).
func (l rate) setHeaders(h http.Header) {
	if l.limit.Requests == 0 {
		return
	}
	h.Set("RateLimit-Policy", fmt.Sprintf(`"operation";q=%d;w=%d`, l.limit.Requests,
		int(l.limit.Window.Seconds())))
	h.Set("RateLimit", fmt.Sprintf(`"operation";r=%d;t=%d`, l.left, seconds(l.reset)))
}
