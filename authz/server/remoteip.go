package server

import (
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// remoteIP returns the address of the peer. If that is a trusted proxy, it returns the rightmost
// address of X-Forwarded-For that is not a trusted proxy.
func remoteIP(r *http.Request, proxies []netip.Prefix) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return "" // not an IP connection
	}
	host, _, _ = strings.Cut(host, "%") // an IPv6 zone is local
	given := r.Header["X-Forwarded-For"]
	if len(proxies) == 0 || len(given) == 0 {
		return host
	}
	hops := append(strings.Split(strings.Join(given, ","), ","), host)
	client := host
	for _, hop := range slices.Backward(hops) {
		hop = strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(hop), "["), "]")
		ip, err := netip.ParseAddr(hop)
		if err != nil || ip.Zone() != "" {
			return host // not written by a trusted proxy
		}
		ip = ip.Unmap()
		client = ip.String()
		if !slices.ContainsFunc(proxies, func(p netip.Prefix) bool { return p.Contains(ip) }) {
			break
		}
	}
	return client
}
