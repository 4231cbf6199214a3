package main

import (
	"regexp"

	"github.com/gin-gonic/gin"

	"github.com/oasgate/oasgate/authz"
)

// router is an engine guarded by the gates, whose own answers are problems.
type router struct {
	*gin.Engine
	gates authz.Gates
}

func newRouter(gates authz.Gates) router {
	r := router{gin.New(), gates}
	r.UseRawPath, r.RedirectTrailingSlash, r.HandleMethodNotAllowed = true, false, true
	r.ContextWithFallback = true // for token.FromContext
	r.Use(r.guard)
	return r
}

// guard runs after gin has matched.
func (r router) guard(c *gin.Context) {
	if c.FullPath() == "" { // 404, or 405 with gin's Allow
		r.refuse(c, authz.StatusError(c.Writer.Status(), "", nil))
		return
	}
	gate, request := r.gates.At(c.FullPath()), c.Request
	admitted, err := gate.Check(request, request.Method+" "+template(c.FullPath()), c.Param)
	if err != nil {
		r.refuse(c, err)
		return
	}
	gate.SetHeaders(c.Writer.Header(), admitted)
	defer func() { gate.HandlePanic(c.Writer, request, recover(), c.Writer.Written()) }()
	c.Request = admitted
	c.Next()
}

func (r router) refuse(c *gin.Context, err error) {
	c.Abort()
	r.gates.At(c.Request.URL.Path).WriteProblem(c.Writer, c.Request, err)
	c.Writer.WriteHeaderNow() // or gin answers HEAD once more
}

// GET also serves HEAD where the document does not declare it.
func (r router) GET(path string, handlers ...gin.HandlerFunc) gin.IRoutes {
	if r.gates.At(path).ImpliesHEAD(template(path)) {
		r.Engine.HEAD(path, handlers...)
	}
	return r.Engine.GET(path, handlers...)
}

func (r router) checkRoutes() error {
	var routes []authz.Route
	for _, route := range r.Routes() {
		routes = append(routes, authz.Route{Method: route.Method, Path: template(route.Path)})
	}
	return r.gates.CheckRoutes(routes)
}

var parameter = regexp.MustCompile(`:([^/]+)`)

func template(pattern string) string { return parameter.ReplaceAllString(pattern, "{$1}") }
