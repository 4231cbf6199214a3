package docs

import (
	"strings"
	"sync"
	"time"
)

// retryAfter is the least time between two attempts to discover an issuer that does not respond.
const retryAfter = 5 * time.Second

// issuer is an issuer and its endpoints. They are discovered at the first view of the page, and
// then kept until the server restarts.
type issuer struct {
	Issuer
	mu     sync.Mutex // also held during discovery, so that waiting requests share the result
	found  *endpoints
	failed time.Time
}

// endpoints are the endpoints of an issuer.
type endpoints struct {
	Issuer
	authorize, token string // authorize may be ""
}

// endpoints returns the known endpoints of all issuers, as seen from base. It first tries to
// discover the unknown ones.
func (d *Docs) endpoints(base string) (found []endpoints) {
	var pending sync.WaitGroup
	for _, i := range d.issuers {
		pending.Go(func() { d.discover(i) })
	}
	pending.Wait()
	for _, i := range d.issuers {
		i.mu.Lock()
		if i.found != nil {
			e := *i.found
			e.authorize, e.token = d.relocate(base, e.authorize), d.relocate(base, e.token)
			found = append(found, e)
		}
		i.mu.Unlock()
	}
	return found
}

// relocate moves an endpoint that is below the resource to base: under dev the issuer is a part of
// this server, and browsers treat two names of one machine as two origins.
func (d *Docs) relocate(base, endpoint string) string {
	own := strings.TrimSuffix(d.config.Resource, "/") + "/"
	if path, ok := strings.CutPrefix(endpoint, own); ok {
		return base + "/" + path
	}
	return endpoint
}

// discover discovers an issuer's endpoints, unless they are known or an attempt has just failed.
func (d *Docs) discover(i *issuer) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.found != nil || !i.failed.IsZero() && d.config.Now().Sub(i.failed) < retryAfter {
		return
	}
	authorize, token, err := d.config.Discover(d.ctx, i.URL)
	if err != nil {
		// after the attempt, so that the requests that waited do not retry one after another
		i.failed = d.config.Now()
		d.config.Logger.Warn("the docs page cannot request tokens: could not fetch the "+
			"issuer's endpoints", "issuer", i.URL, "cause", err.Error())
		return
	}
	i.found = &endpoints{Issuer: i.Issuer, authorize: authorize, token: token}
}
