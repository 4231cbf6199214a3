package server

import (
	"net/http"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/oasgate/oasgate/authz/devissuer"
	"github.com/oasgate/oasgate/authz/token"
)

// jumping is a server whose clock the test sets. The clock of the issuer is correct.
type jumping struct {
	*running
	ahead atomic.Int64 // of the right time
}

func startJumping(t *testing.T) *jumping {
	t.Helper()
	j := &jumping{}
	j.running = start(t, func(c *Config) {
		c.Now = j.now
		c.Resource = "https://api.example"
		c.Issuers[0].DPoP = token.DPoPAllowed
		c.Document.Paths.Value(public.path).Get.Extensions = map[string]any{
			"x-authz-rate-limit": "2/d",
		}
	})
	return j
}

// now is the clock on the wall. It has no monotonic reading, so that it jumps for intervals, too.
func (j *jumping) now() time.Time {
	return time.Now().Add(time.Duration(j.ahead.Load())).Round(0)
}

func (j *jumping) jump(ahead time.Duration) { j.ahead.Store(int64(ahead)) }

// mint returns a token whose iat is some time from now, with a lifetime.
func (j *jumping) mint(after, lifetime time.Duration, claims map[string]any) string {
	issued := time.Now().Add(after)
	all := map[string]any{
		"iat": issued.Unix(), "nbf": issued.Unix(), "exp": issued.Add(lifetime).Unix(),
	}
	for name, value := range claims {
		all[name] = value
	}
	return mint(j.issuer, all)
}

func TestClockJumpsForwards(t *testing.T) {
	j := startJumping(t)
	short, long := j.mint(0, time.Hour, nil), j.mint(0, 20*time.Hour, nil)
	for range 2 { // then it is cached
		j.get(t, private.path, short, 200, "it is valid")
	}
	j.get(t, private.path, long, 200, "it is valid")
	j.jump(2 * time.Hour)
	j.get(t, private.path, short, 401, "it has expired by the clock")
	j.get(t, private.path, long, 200, "it has not expired")

	j.jump(30 * time.Hour)
	_, before := j.issuer.Requests()
	j.get(t, private.path, long, 401, "it has expired by the clock")
	j.get(t, private.path, j.mint(30*time.Hour, time.Hour, nil), 200, "keys are fetched again")
	if _, now := j.issuer.Requests(); now != before+1 {
		t.Errorf("%d fetches of keys that are too old, want 1", now-before)
	}

	j.issuer.Stop()
	j.jump(60 * time.Hour)
	later := j.mint(60*time.Hour, time.Hour, nil)
	j.get(t, private.path, later, 503, "keys are too old, and cannot be fetched")
	if got := j.ask(t, "GET", "/readyz"); got.status != 503 {
		t.Errorf("/readyz is %d without usable keys, want 503", got.status)
	}
	if err := j.issuer.Restart(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the token is accepted", func() bool {
		return j.ask(t, "GET", private.path, "Authorization", "Bearer "+later).status == 200
	})
}

func TestClockJumpsBackwards(t *testing.T) {
	j := startJumping(t)
	current := j.mint(0, time.Hour, nil)
	for range 2 {
		j.get(t, private.path, current, 200, "it is valid")
	}
	ended := j.mint(-2*time.Hour, time.Hour, nil)
	j.get(t, private.path, ended, 401, "it has expired")
	j.issuer.Rotate("")
	j.get(t, private.path, j.mint(0, time.Hour, nil), 200, "a refresh finds the new key")

	j.jump(-2 * time.Hour)
	j.get(t, private.path, current, 401, "it was issued in the future by the clock")
	earlier := j.mint(-3*time.Hour, 4*time.Hour, nil)
	j.get(t, private.path, earlier, 200, "it is valid")
	j.issuer.Rotate("")
	j.get(t, private.path, j.mint(-3*time.Hour, 4*time.Hour, nil), 200,
		"the cooldown of the last refresh is over, not hours away")

	j.jump(0)
	j.get(t, private.path, current, 200, "it is valid again")
	j.get(t, private.path, ended, 401, "it has expired")
}

func TestClockJumpsForRateLimits(t *testing.T) {
	j := startJumping(t)
	exhaust := func() {
		t.Helper()
		for _, want := range []int{200, 200, 429} {
			got := j.ask(t, "GET", public.path)
			if got.status != want {
				t.Fatalf("status %d, want %d: %s", got.status, want, got.body)
			}
			if want == 429 {
				wait, err := strconv.Atoi(got.header.Get("Retry-After"))
				if err != nil || wait < 1 || wait > 24*60*60 {
					t.Errorf("Retry-After is %d, %v, want the rest of the day", wait, err)
				}
			}
		}
	}
	exhaust()
	j.jump(48 * time.Hour)
	exhaust()
	j.jump(-48 * time.Hour)
	exhaust()
}

func TestClockJumpsForProofs(t *testing.T) {
	j := startJumping(t)
	prover, err := devissuer.NewProver("ES256", j.now)
	if err != nil {
		t.Fatal(err)
	}
	bound := j.mint(0, 20*time.Hour, map[string]any{
		"cnf": map[string]any{"jkt": prover.Thumbprint()},
	})
	prove := func() string {
		return prover.Proof(http.MethodGet, "https://api.example"+private.path, bound, nil)
	}
	send := func(proof string, want int, why string) {
		t.Helper()
		got := j.ask(t, "GET", private.path, "Authorization", "DPoP "+bound, "DPoP", proof)
		if got.status != want {
			t.Errorf("status %d, want %d: %s\n%s", got.status, want, why, got.body)
		}
	}
	used, unused := prove(), prove()
	send(used, 200, "it is fresh")
	send(used, 401, "it was used")
	j.jump(2 * time.Hour)
	send(unused, 401, "it was made hours ago by the clock")
	send(prove(), 200, "it is fresh by the clock") // and the first is forgotten
	j.jump(0)
	send(used, 503, "the store cannot tell that it was not used")
	j.jump(6 * time.Minute)
	send(prove(), 200, "no proof of this time was used")
	j.jump(-2 * time.Hour)
	send(used, 401, "it was made in the future by the clock")

	j.jump(2*time.Hour + 10*time.Minute)
	send(prove(), 200, "it is fresh by the clock")
	j.jump(0)
	send(used, 503, "a second jump does not change that")
}
