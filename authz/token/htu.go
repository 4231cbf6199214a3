package token

import "strings"

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
