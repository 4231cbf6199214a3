package command

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oasgate/oasgate/authz/token"
)

// shape is a token in the form of its provider, and the expected result with the provider's preset.
// The claims are complete, because presets depend on them. Names and numbers are invented.
type shape struct {
	name   string
	more   string // what an operator adds to the preset, as lines of the file
	header string
	claims string
	raw    string // instead of both: a token that is not a signed JWT

	scopes []string
	client string
	code   token.Code // of the refusal, in place of scopes and client
	says   string
}

// shapesAt is when the tokens were issued.
const shapesAt = 1_795_000_000

var shapes = map[string][]shape{
	"auth0": {
		{
			name:   "user, with RBAC off",
			header: `{"alg":"RS256","typ":"JWT","kid":"kHXo7wIyyCdf5q3WXm0nA"}`,
			claims: `{"iss":"https://example.eu.auth0.com/","sub":"auth0|64f1c2d3e4b5a69788990011","aud":["https://quickstarts/api","https://example.eu.auth0.com/userinfo"],
				"iat":1795000000,"exp":1795086400,"scope":"openid profile read:messages","azp":"sPa0ClientIdOfTheFrontend0000001"}`,
			scopes: []string{
				"openid",
				"profile",
				"read:messages",
			}, client: "sPa0ClientIdOfTheFrontend0000001",
		},
		{
			name:   "user, with permissions, which do not count",
			header: `{"alg":"RS256","typ":"JWT","kid":"kHXo7wIyyCdf5q3WXm0nA"}`,
			claims: `{"iss":"https://example.eu.auth0.com/","sub":"auth0|64f1c2d3e4b5a69788990011","aud":"https://quickstarts/api",
				"iat":1795000000,"exp":1795086400,"scope":"read:messages","azp":"sPa0ClientIdOfTheFrontend0000001","permissions":["read:messages","write:messages"]}`,
			scopes: []string{"read:messages"}, client: "sPa0ClientIdOfTheFrontend0000001",
		},
		{
			name:   "machine",
			header: `{"alg":"RS256","typ":"JWT","kid":"kHXo7wIyyCdf5q3WXm0nA"}`,
			claims: `{"iss":"https://example.eu.auth0.com/","sub":"m2mClientIdOfTheBackend000000001@clients","aud":"https://quickstarts/api",
				"iat":1795000000,"exp":1795086400,"scope":"read:messages write:messages","gty":"client-credentials","azp":"m2mClientIdOfTheBackend000000001"}`,
			scopes: []string{
				"read:messages",
				"write:messages",
			}, client: "m2mClientIdOfTheBackend000000001",
		},
		{
			name:   "of the RFC 9068 profile, held to it",
			more:   "profile: rfc9068",
			header: `{"alg":"RS256","typ":"at+jwt","kid":"kHXo7wIyyCdf5q3WXm0nA"}`,
			claims: `{"iss":"https://example.eu.auth0.com/","sub":"auth0|64f1c2d3e4b5a69788990011","aud":["https://quickstarts/api","https://example.eu.auth0.com/userinfo"],
				"iat":1795000000,"exp":1795086400,"scope":"openid read:messages","jti":"Zm9vYmFyYmF6cXV4","client_id":"sPa0ClientIdOfTheFrontend0000001"}`,
			scopes: []string{"openid", "read:messages"}, client: "sPa0ClientIdOfTheFrontend0000001",
		},
		{
			name:   "of the default profile, held to RFC 9068",
			more:   "profile: rfc9068",
			header: `{"alg":"RS256","typ":"JWT","kid":"kHXo7wIyyCdf5q3WXm0nA"}`,
			claims: `{"iss":"https://example.eu.auth0.com/","sub":"auth0|64f1c2d3e4b5a69788990011","aud":"https://quickstarts/api","iat":1795000000,"exp":1795086400,"scope":"read:messages","azp":"sPa0ClientIdOfTheFrontend0000001"}`,
			code:   token.WrongType, says: "typ is \"JWT\", expected at+jwt",
		},
		{
			name:   "ID token",
			header: `{"alg":"RS256","typ":"JWT","kid":"kHXo7wIyyCdf5q3WXm0nA"}`,
			claims: `{"nickname":"jane","name":"Jane","picture":"https://pictures.example/jane.png","updated_at":"2026-11-18T10:00:00.000Z","email":"jane@example.com","email_verified":true,
				"iss":"https://example.eu.auth0.com/","aud":"sPa0ClientIdOfTheFrontend0000001","sub":"auth0|64f1c2d3e4b5a69788990011","iat":1795000000,"exp":1795036000,"sid":"Kk1","nonce":"bm9uY2U"}`,
			code: token.WrongAudience, says: "This looks like an ID token",
		},
		{
			name:   "for the Management API",
			header: `{"alg":"RS256","typ":"JWT","kid":"kHXo7wIyyCdf5q3WXm0nA"}`,
			claims: `{"iss":"https://example.eu.auth0.com/","sub":"m2mClientIdOfTheBackend000000001@clients","aud":"https://example.eu.auth0.com/api/v2/","iat":1795000000,"exp":1795086400,"scope":"read:messages","gty":"client-credentials","azp":"m2mClientIdOfTheBackend000000001"}`,
			code:   token.WrongAudience,
		},
		{
			name:   "of another tenant",
			header: `{"alg":"RS256","typ":"JWT","kid":"kHXo7wIyyCdf5q3WXm0nA"}`,
			claims: `{"iss":"https://other.eu.auth0.com/","sub":"auth0|1","aud":"https://quickstarts/api","iat":1795000000,"exp":1795086400,"scope":"read:messages"}`,
			code:   token.WrongIssuer,
		},
		{
			name:   "signed with a shared secret",
			header: `{"alg":"HS256","typ":"JWT"}`,
			claims: `{"iss":"https://example.eu.auth0.com/","sub":"auth0|1","aud":"https://quickstarts/api","iat":1795000000,"exp":1795086400,"scope":"read:messages"}`,
			code:   token.WrongAlgorithm,
		},
		{
			name: "for no audience: opaque",
			raw:  "n0tAJwtButARandomOpaqueString_01",
			code: token.Malformed,
			says: "unless the client requests this API's audience",
		},
		{
			name: "for no audience: encrypted",
			raw:  "eyJhbGciOiJkaXIiLCJlbmMiOiJBMjU2R0NNIn0..aXZpdml2aXZpdg.Y2lwaGVydGV4dA.dGFn",
			code: token.Malformed,
			says: "JWE",
		},
	},
	"auth0-rbac": {
		{
			name:   "user",
			header: `{"alg":"RS256","typ":"JWT","kid":"kHXo7wIyyCdf5q3WXm0nA"}`,
			claims: `{"iss":"https://example.eu.auth0.com/","sub":"auth0|64f1c2d3e4b5a69788990011","aud":["https://quickstarts/api","https://example.eu.auth0.com/userinfo"],
				"iat":1795000000,"exp":1795086400,"scope":"openid profile admin:everything","azp":"sPa0ClientIdOfTheFrontend0000001","permissions":["read:messages","write:messages"]}`,
			scopes: []string{
				"read:messages",
				"write:messages",
			}, client: "sPa0ClientIdOfTheFrontend0000001",
		},
		{
			name:   "user without a role",
			header: `{"alg":"RS256","typ":"JWT","kid":"kHXo7wIyyCdf5q3WXm0nA"}`,
			claims: `{"iss":"https://example.eu.auth0.com/","sub":"auth0|2","aud":"https://quickstarts/api","iat":1795000000,"exp":1795086400,"scope":"read:messages","azp":"sPa0ClientIdOfTheFrontend0000001","permissions":[]}`,
			client: "sPa0ClientIdOfTheFrontend0000001",
		},
		{
			name:   "from before RBAC was switched on",
			header: `{"alg":"RS256","typ":"JWT","kid":"kHXo7wIyyCdf5q3WXm0nA"}`,
			claims: `{"iss":"https://example.eu.auth0.com/","sub":"auth0|2","aud":"https://quickstarts/api","iat":1795000000,"exp":1795086400,"scope":"read:messages","azp":"sPa0ClientIdOfTheFrontend0000001"}`,
			client: "sPa0ClientIdOfTheFrontend0000001",
		},
	},
	"keycloak": {
		{
			name:   "user",
			header: `{"alg":"RS256","typ":"JWT","kid":"FJ86GcF3jTbNLOco4NvZkUCIUmfYCqoqtOQeMfbhNlE"}`,
			claims: `{"exp":1795000300,"iat":1795000000,"auth_time":1794999000,"jti":"onrtac:5c1f0c3e-8a35-4d0e-9a3b-3b1f0f9f0a11","iss":"https://keycloak.example/realms/example",
				"aud":["https://api.example","account"],"sub":"36fa0f91-f94d-4a0c-afed-6b7d952e47da","typ":"Bearer","azp":"frontend","sid":"2a88c258-f73a-4103-b862-e1fbd8f4e04e","acr":"1",
				"allowed-origins":["https://app.example"],"realm_access":{"roles":["offline_access","default-roles-example","write:messages"]},
				"resource_access":{"account":{"roles":["manage-account","view-profile"]},"other-api":{"roles":["delete:messages"]}},
				"scope":"openid email profile read:messages","email_verified":true,"name":"Jane Doe","preferred_username":"jane","given_name":"Jane","family_name":"Doe","email":"jane@example.com"}`,
			scopes: []string{
				"openid",
				"email",
				"profile",
				"read:messages",
				"offline_access",
				"default-roles-example",
				"write:messages",
			}, client: "frontend",
		},
		{
			name:   "service account",
			header: `{"alg":"RS256","typ":"JWT","kid":"FJ86GcF3jTbNLOco4NvZkUCIUmfYCqoqtOQeMfbhNlE"}`,
			claims: `{"exp":1795000300,"iat":1795000000,"jti":"trrtcc:7d9d2d51-6a0e-4a69-8a43-1f6a3f0d8a70","iss":"https://keycloak.example/realms/example","aud":"https://api.example",
				"sub":"90c1a7a5-30e4-4d1c-8f1f-7a1d1e6f6c11","typ":"Bearer","azp":"backend","acr":"1","scope":"read:messages","clientHost":"10.0.0.7","preferred_username":"service-account-backend","clientAddress":"10.0.0.7","client_id":"backend"}`,
			scopes: []string{"read:messages"}, client: "backend",
		},
		{
			name: "roles of the API's own client, by other names",
			more: "scope_claims: [/resource_access/my-api/roles]\n    scope_names: {admin: " +
				"read:messages write:messages}",
			header: `{"alg":"RS256","typ":"JWT","kid":"FJ86GcF3jTbNLOco4NvZkUCIUmfYCqoqtOQeMfbhNlE"}`,
			claims: `{"exp":1795000300,"iat":1795000000,"jti":"1","iss":"https://keycloak.example/realms/example","aud":["https://api.example","my-api"],"sub":"36fa0f91","typ":"Bearer","azp":"frontend",
				"realm_access":{"roles":["delete:messages"]},"resource_access":{"my-api":{"roles":["admin"]},"other-api":{"roles":["delete:messages"]}},"scope":"openid delete:messages"}`,
			scopes: []string{"read:messages", "write:messages"}, client: "frontend",
		},
		{
			name:   "ID token",
			header: `{"alg":"RS256","typ":"JWT","kid":"FJ86GcF3jTbNLOco4NvZkUCIUmfYCqoqtOQeMfbhNlE"}`,
			claims: `{"exp":1795000300,"iat":1795000000,"auth_time":1794999000,"jti":"2","iss":"https://keycloak.example/realms/example","aud":"frontend","sub":"36fa0f91","typ":"ID","azp":"frontend","nonce":"n","sid":"s","at_hash":"eZ0T7yxQ8ZQv3OeH2Yb1vA","acr":"1"}`,
			code:   token.WrongAudience, says: "This looks like an ID token",
		},
		{
			name:   "ID token of a client that goes by the API's name",
			header: `{"alg":"RS256","typ":"JWT","kid":"FJ86GcF3jTbNLOco4NvZkUCIUmfYCqoqtOQeMfbhNlE"}`,
			claims: `{"exp":1795000300,"iat":1795000000,"jti":"2","iss":"https://keycloak.example/realms/example","aud":"https://api.example","sub":"36fa0f91","typ":"ID","azp":"https://api.example","realm_access":{"roles":["write:messages"]}}`,
			code:   token.WrongClaim, says: `claim /typ is "ID", expected Bearer or DPoP`,
		},
		{
			name:   "refresh token",
			header: `{"alg":"HS512","typ":"JWT","kid":"0c9f6f2e-0d39-4f0b-8d9d-2f9fd06a1c58"}`,
			claims: `{"exp":1795001800,"iat":1795000000,"jti":"3","iss":"https://keycloak.example/realms/example","aud":"https://keycloak.example/realms/example","sub":"36fa0f91","typ":"Refresh","azp":"frontend","sid":"s","scope":"openid read:messages"}`,
			code:   token.WrongAlgorithm,
		},
		{
			name:   "without an audience mapper",
			header: `{"alg":"RS256","typ":"JWT","kid":"FJ86GcF3jTbNLOco4NvZkUCIUmfYCqoqtOQeMfbhNlE"}`,
			claims: `{"exp":1795000300,"iat":1795000000,"jti":"4","iss":"https://keycloak.example/realms/example","aud":"account","sub":"36fa0f91","typ":"Bearer","azp":"frontend","scope":"read:messages"}`,
			code:   token.WrongAudience, says: `"account"`,
		},
		{
			name:   "of another realm",
			header: `{"alg":"RS256","typ":"JWT","kid":"FJ86GcF3jTbNLOco4NvZkUCIUmfYCqoqtOQeMfbhNlE"}`,
			claims: `{"exp":1795000300,"iat":1795000000,"jti":"5","iss":"https://keycloak.example/realms/master","aud":"https://api.example","sub":"36fa0f91","typ":"Bearer","azp":"frontend","scope":"read:messages"}`,
			code:   token.WrongIssuer,
		},
		{
			name:   "bound by DPoP, as a bearer token",
			header: `{"alg":"RS256","typ":"JWT","kid":"FJ86GcF3jTbNLOco4NvZkUCIUmfYCqoqtOQeMfbhNlE"}`,
			claims: `{"exp":1795000300,"iat":1795000000,"jti":"6","iss":"https://keycloak.example/realms/example","aud":"https://api.example","sub":"36fa0f91","typ":"DPoP","azp":"frontend","scope":"read:messages","cnf":{"jkt":"0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}}`,
			code:   token.Bound,
		},
	},
	"entra": {
		{
			name:   "user",
			header: `{"typ":"JWT","alg":"RS256","kid":"H9nj5AOSswMphg1SFx7jaV0lB9w"}`,
			claims: `{"aud":"66666666-7777-8888-9999-000000000000","iss":"https://login.microsoftonline.com/11111111-2222-3333-4444-555555555555/v2.0","iat":1795000000,"nbf":1795000000,"exp":1795004800,
				"aio":"AWQAm/8XAAAAPG9SheyqcZ","azp":"aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee","azpacr":"0","name":"Jane Doe","oid":"bf6c3c10-5aad-4cd8-b54c-000000000001","preferred_username":"jane@example.com",
				"rh":"0.ATAA86AfSyuG.","roles":["messages.audit"],"scp":"read:messages write:messages","sub":"MiVyAiU0Q9B7caSpyCvvge63H6Ohve2hED15NmFfx1s","tid":"11111111-2222-3333-4444-555555555555","uti":"Ats0cwbTrk6Dfs2WbHwNAA","ver":"2.0"}`,
			scopes: []string{
				"read:messages",
				"write:messages",
				"messages.audit",
			}, client: "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
		},
		{
			name:   "application",
			header: `{"typ":"JWT","alg":"RS256","kid":"H9nj5AOSswMphg1SFx7jaV0lB9w"}`,
			claims: `{"aud":"66666666-7777-8888-9999-000000000000","iss":"https://login.microsoftonline.com/11111111-2222-3333-4444-555555555555/v2.0","iat":1795000000,"nbf":1795000000,"exp":1795003900,"aio":"k2RgYHhl","azp":"ffffffff-bbbb-cccc-dddd-eeeeeeeeeeee","azpacr":"1",
				"oid":"0d0d0d0d-5aad-4cd8-b54c-000000000002","rh":"0.ATAA.","roles":["Messages.Read.All"],"sub":"0d0d0d0d-5aad-4cd8-b54c-000000000002","tid":"11111111-2222-3333-4444-555555555555","uti":"x","ver":"2.0"}`,
			more:   "scope_names: {Messages.Read.All: read:messages}",
			scopes: []string{"read:messages"}, client: "ffffffff-bbbb-cccc-dddd-eeeeeeeeeeee",
		},
		{
			name:   "application without a role: who asks for none gets a token all the same",
			header: `{"typ":"JWT","alg":"RS256","kid":"H9nj5AOSswMphg1SFx7jaV0lB9w"}`,
			claims: `{"aud":"66666666-7777-8888-9999-000000000000","iss":"https://login.microsoftonline.com/11111111-2222-3333-4444-555555555555/v2.0","iat":1795000000,"nbf":1795000000,"exp":1795003900,"azp":"ffffffff-bbbb-cccc-dddd-eeeeeeeeeeee","azpacr":"1",
				"oid":"0d0d0d0d","sub":"0d0d0d0d","tid":"11111111-2222-3333-4444-555555555555","ver":"2.0"}`,
			client: "ffffffff-bbbb-cccc-dddd-eeeeeeeeeeee",
		},
		{
			name:   "ID token",
			header: `{"typ":"JWT","alg":"RS256","kid":"H9nj5AOSswMphg1SFx7jaV0lB9w"}`,
			claims: `{"aud":"aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee","iss":"https://login.microsoftonline.com/11111111-2222-3333-4444-555555555555/v2.0","iat":1795000000,"nbf":1795000000,"exp":1795003900,"name":"Jane Doe","nonce":"n","oid":"bf6c3c10","preferred_username":"jane@example.com","rh":"0.A.","sub":"pair","tid":"11111111-2222-3333-4444-555555555555","uti":"y","ver":"2.0","roles":["messages.audit"]}`,
			code:   token.WrongAudience, says: "This looks like an ID token",
		},
		{
			name:   "for another API, with our scope's name",
			header: `{"typ":"JWT","alg":"RS256","kid":"H9nj5AOSswMphg1SFx7jaV0lB9w"}`,
			claims: `{"aud":"77777777-7777-8888-9999-000000000000","iss":"https://login.microsoftonline.com/11111111-2222-3333-4444-555555555555/v2.0","iat":1795000000,"nbf":1795000000,"exp":1795003900,"azp":"a","scp":"read:messages","sub":"s","ver":"2.0"}`,
			code:   token.WrongAudience,
		},
		{
			name:   "for Microsoft Graph",
			header: `{"typ":"JWT","nonce":"q1w2e3","alg":"RS256","x5t":"H9nj5AOSswMphg1SFx7jaV0lB9w","kid":"H9nj5AOSswMphg1SFx7jaV0lB9w"}`,
			claims: `{"aud":"00000003-0000-0000-c000-000000000000","iss":"https://sts.windows.net/11111111-2222-3333-4444-555555555555/","iat":1795000000,"nbf":1795000000,"exp":1795003900,"appid":"aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee","scp":"User.Read","sub":"s","ver":"1.0"}`,
			code:   token.WrongIssuer,
		},
		{
			name:   "of version 1.0",
			header: `{"typ":"JWT","alg":"RS256","x5t":"H9nj5AOSswMphg1SFx7jaV0lB9w","kid":"H9nj5AOSswMphg1SFx7jaV0lB9w"}`,
			claims: `{"aud":"api://66666666-7777-8888-9999-000000000000","iss":"https://sts.windows.net/11111111-2222-3333-4444-555555555555/","iat":1795000000,"nbf":1795000000,"exp":1795003900,"appid":"a","scp":"read:messages","sub":"s","ver":"1.0"}`,
			code:   token.WrongIssuer, says: "sts.windows.net",
		},
		{
			name:   "of another tenant",
			header: `{"typ":"JWT","alg":"RS256","kid":"H9nj5AOSswMphg1SFx7jaV0lB9w"}`,
			claims: `{"aud":"66666666-7777-8888-9999-000000000000","iss":"https://login.microsoftonline.com/99999999-2222-3333-4444-555555555555/v2.0","iat":1795000000,"nbf":1795000000,"exp":1795003900,"azp":"a","scp":"read:messages","sub":"s","tid":"99999999-2222-3333-4444-555555555555","ver":"2.0"}`,
			code:   token.WrongIssuer,
		},
	},
	"entra-v1": {
		{
			name:   "user",
			header: `{"typ":"JWT","alg":"RS256","x5t":"H9nj5AOSswMphg1SFx7jaV0lB9w","kid":"H9nj5AOSswMphg1SFx7jaV0lB9w"}`,
			claims: `{"aud":"api://66666666-7777-8888-9999-000000000000","iss":"https://sts.windows.net/11111111-2222-3333-4444-555555555555/","iat":1795000000,"nbf":1795000000,"exp":1795004800,
				"acr":"1","aio":"AXQAi/8IAAAA","amr":["pwd"],"appid":"aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee","appidacr":"0","ipaddr":"192.0.2.7","name":"Jane Doe","oid":"bf6c3c10-5aad-4cd8-b54c-000000000001",
				"rh":"0.ATAA.","scp":"read:messages","sub":"pair","tid":"11111111-2222-3333-4444-555555555555","unique_name":"jane@example.com","upn":"jane@example.com","uti":"x","ver":"1.0"}`,
			scopes: []string{"read:messages"}, client: "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
		},
		{
			name:   "application",
			header: `{"typ":"JWT","alg":"RS256","x5t":"H9nj5AOSswMphg1SFx7jaV0lB9w","kid":"H9nj5AOSswMphg1SFx7jaV0lB9w"}`,
			claims: `{"aud":"api://66666666-7777-8888-9999-000000000000","iss":"https://sts.windows.net/11111111-2222-3333-4444-555555555555/","iat":1795000000,"nbf":1795000000,"exp":1795003900,"aio":"k2Rg",
				"appid":"ffffffff-bbbb-cccc-dddd-eeeeeeeeeeee","appidacr":"1","idp":"https://sts.windows.net/11111111-2222-3333-4444-555555555555/","oid":"0d0d0d0d","roles":["messages.audit"],"sub":"0d0d0d0d","tid":"11111111-2222-3333-4444-555555555555","ver":"1.0"}`,
			scopes: []string{"messages.audit"}, client: "ffffffff-bbbb-cccc-dddd-eeeeeeeeeeee",
		},
		{
			name:   "of version 2.0",
			header: `{"typ":"JWT","alg":"RS256","kid":"H9nj5AOSswMphg1SFx7jaV0lB9w"}`,
			claims: `{"aud":"api://66666666-7777-8888-9999-000000000000","iss":"https://login.microsoftonline.com/11111111-2222-3333-4444-555555555555/v2.0","iat":1795000000,"exp":1795003900,"azp":"a","scp":"read:messages","sub":"s","ver":"2.0"}`,
			code:   token.WrongIssuer,
		},
		{
			name:   "ID token",
			header: `{"typ":"JWT","alg":"RS256","kid":"H9nj5AOSswMphg1SFx7jaV0lB9w"}`,
			claims: `{"aud":"aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee","iss":"https://sts.windows.net/11111111-2222-3333-4444-555555555555/","iat":1795000000,"nbf":1795000000,"exp":1795003900,"amr":["pwd"],"nonce":"n","oid":"bf6c3c10","sub":"s","tid":"11111111-2222-3333-4444-555555555555","ver":"1.0"}`,
			code:   token.WrongAudience, says: "This looks like an ID token",
		},
		{
			name:   "of another tenant",
			header: `{"typ":"JWT","alg":"RS256","kid":"H9nj5AOSswMphg1SFx7jaV0lB9w"}`,
			claims: `{"aud":"api://66666666-7777-8888-9999-000000000000","iss":"https://sts.windows.net/99999999-2222-3333-4444-555555555555/","iat":1795000000,"exp":1795003900,"appid":"a","scp":"read:messages","sub":"s","ver":"1.0"}`,
			code:   token.WrongIssuer,
		},
	},
	"entra-multitenant": {
		{
			name:   "user of an accepted tenant",
			header: `{"typ":"JWT","alg":"RS256","kid":"H9nj5AOSswMphg1SFx7jaV0lB9w"}`,
			claims: `{"aud":"66666666-7777-8888-9999-000000000000","iss":"https://login.microsoftonline.com/11111111-2222-3333-4444-555555555555/v2.0","iat":1795000000,"exp":1795004800,"azp":"aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee","oid":"o","scp":"read:messages","sub":"s","tid":"11111111-2222-3333-4444-555555555555","ver":"2.0"}`,
			scopes: []string{"read:messages"}, client: "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
		},
		{
			name:   "of another tenant",
			header: `{"typ":"JWT","alg":"RS256","kid":"H9nj5AOSswMphg1SFx7jaV0lB9w"}`,
			claims: `{"aud":"66666666-7777-8888-9999-000000000000","iss":"https://login.microsoftonline.com/99999999-2222-3333-4444-555555555555/v2.0","iat":1795000000,"exp":1795004800,"azp":"a","scp":"read:messages","sub":"s","tid":"99999999-2222-3333-4444-555555555555","ver":"2.0"}`,
			code:   token.WrongIssuer,
		},
		{
			name:   "of another tenant that says it is ours",
			header: `{"typ":"JWT","alg":"RS256","kid":"H9nj5AOSswMphg1SFx7jaV0lB9w"}`,
			claims: `{"aud":"66666666-7777-8888-9999-000000000000","iss":"https://login.microsoftonline.com/11111111-2222-3333-4444-555555555555/v2.0","iat":1795000000,"exp":1795004800,"azp":"a","scp":"read:messages","sub":"s","tid":"99999999-2222-3333-4444-555555555555","ver":"2.0"}`,
			code:   token.WrongIssuer, says: "tenant (tid)",
		},
		{
			name:   "of the template itself",
			header: `{"typ":"JWT","alg":"RS256","kid":"H9nj5AOSswMphg1SFx7jaV0lB9w"}`,
			claims: `{"aud":"66666666-7777-8888-9999-000000000000","iss":"https://login.microsoftonline.com/{tenantid}/v2.0","iat":1795000000,"exp":1795004800,"azp":"a","scp":"read:messages","sub":"s","tid":"{tenantid}","ver":"2.0"}`,
			code:   token.WrongIssuer,
		},
		{
			name:   "of a personal account",
			header: `{"typ":"JWT","alg":"RS256","kid":"H9nj5AOSswMphg1SFx7jaV0lB9w"}`,
			claims: `{"aud":"66666666-7777-8888-9999-000000000000","iss":"https://login.microsoftonline.com/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0","iat":1795000000,"exp":1795004800,"azp":"a","scp":"read:messages","sub":"s","tid":"9188040d-6c67-4c5b-b112-36a304b66dad","ver":"2.0"}`,
			code:   token.WrongIssuer,
		},
	},
	"entra-b2c": {
		{
			name:   "user",
			header: `{"alg":"RS256","kid":"X5eXk4xyojNFum1kl2Ytv8dlNP4-c57dO6QGTVBwaNk","typ":"JWT"}`,
			claims: `{"iss":"https://example.b2clogin.com/11111111-2222-3333-4444-555555555555/v2.0/","exp":1795003600,"nbf":1795000000,"aud":"66666666-7777-8888-9999-000000000000","oid":"bf6c3c10-5aad-4cd8-b54c-000000000001","sub":"bf6c3c10-5aad-4cd8-b54c-000000000001","name":"Jane","emails":["jane@example.com"],
				"tfp":"B2C_1_signin","nonce":"defaultNonce","scp":"read:messages write:messages","azp":"aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee","ver":"1.0","iat":1795000000}`,
			more:   "required_claims: {/tfp: [B2C_1_signin]}",
			scopes: []string{"read:messages", "write:messages"},
			client: "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
		},
		{
			name:   "of another policy",
			header: `{"alg":"RS256","kid":"X5eXk4xyojNFum1kl2Ytv8dlNP4-c57dO6QGTVBwaNk","typ":"JWT"}`,
			claims: `{"iss":"https://example.b2clogin.com/11111111-2222-3333-4444-555555555555/v2.0/","exp":1795003600,"nbf":1795000000,"aud":"66666666-7777-8888-9999-000000000000","sub":"s","tfp":"B2C_1_reset","scp":"read:messages","azp":"a","ver":"1.0","iat":1795000000}`,
			more:   "required_claims: {/tfp: [B2C_1_signin]}",
			code:   token.WrongClaim, says: "claim /tfp is",
		},
		{
			name:   "ID token, which grants nothing",
			header: `{"alg":"RS256","kid":"X5eXk4xyojNFum1kl2Ytv8dlNP4-c57dO6QGTVBwaNk","typ":"JWT"}`,
			claims: `{"iss":"https://example.b2clogin.com/11111111-2222-3333-4444-555555555555/v2.0/","exp":1795003600,"nbf":1795000000,"aud":"66666666-7777-8888-9999-000000000000","sub":"s","tfp":"B2C_1_signin","nonce":"n","auth_time":1795000000,"ver":"1.0","iat":1795000000}`,
		},
		{
			name:   "with the policy in iss",
			header: `{"alg":"RS256","kid":"X5eXk4xyojNFum1kl2Ytv8dlNP4-c57dO6QGTVBwaNk","typ":"JWT"}`,
			claims: `{"iss":"https://example.b2clogin.com/tfp/11111111-2222-3333-4444-555555555555/b2c_1_signin/v2.0/","exp":1795003600,"aud":"66666666-7777-8888-9999-000000000000","sub":"s","scp":"read:messages","iat":1795000000}`,
			code:   token.WrongIssuer,
		},
	},
	"okta": {
		{
			name:   "user",
			header: `{"kid":"ZkvelLN0seik7w4pc0prCcfUf0h2hFfiwkDeCrs0iUc","alg":"RS256"}`,
			claims: `{"ver":1,"jti":"AT.MNAoEQ0jbKqoinrQo1D0XKjMX28U5d7ZszBceot7000","iss":"https://example.okta.com/oauth2/default","aud":"api://default","iat":1795000000,"exp":1795003600,
				"cid":"0oa1b2c3d4e5f6g7h8i9","uid":"00u1b2c3d4e5f6g7h8i9","scp":["openid","profile","read:messages"],"auth_time":1794999900,"sub":"jane@example.com"}`,
			scopes: []string{"openid", "profile", "read:messages"}, client: "0oa1b2c3d4e5f6g7h8i9",
		},
		{
			name:   "service",
			header: `{"kid":"ZkvelLN0seik7w4pc0prCcfUf0h2hFfiwkDeCrs0iUc","alg":"RS256"}`,
			claims: `{"ver":1,"jti":"AT.0mP4JKAZX1iACIT4vbEDF7LpvDVjxypPMf0D7uX39RE","iss":"https://example.okta.com/oauth2/default","aud":"api://default","iat":1795000000,"exp":1795003600,"cid":"0oa9z8y7x6w5v4u3t2s1","scp":["write:messages"],"sub":"0oa9z8y7x6w5v4u3t2s1"}`,
			scopes: []string{"write:messages"}, client: "0oa9z8y7x6w5v4u3t2s1",
		},
		{
			name:   "ID token",
			header: `{"kid":"ZkvelLN0seik7w4pc0prCcfUf0h2hFfiwkDeCrs0iUc","alg":"RS256"}`,
			claims: `{"sub":"00u1b2c3d4e5f6g7h8i9","name":"Jane Doe","email":"jane@example.com","ver":1,"iss":"https://example.okta.com/oauth2/default","aud":"0oa1b2c3d4e5f6g7h8i9","iat":1795000000,"exp":1795003600,"jti":"ID.radCQMOQUmyvcTBmmIL0J6BaS60apUEiC7vI7pOmkw0","amr":["pwd"],"idp":"00o1","preferred_username":"jane@example.com","auth_time":1794999900,"at_hash":"fPlsvVszI29LU2UhDyJ9vg"}`,
			code:   token.WrongAudience, says: "This looks like an ID token",
		},
		{
			name:   "of the org's own server",
			header: `{"kid":"ZkvelLN0seik7w4pc0prCcfUf0h2hFfiwkDeCrs0iUc","alg":"RS256"}`,
			claims: `{"ver":1,"jti":"AT.x","iss":"https://example.okta.com","aud":"https://example.okta.com","sub":"jane@example.com","iat":1795000000,"exp":1795003600,"cid":"0oa1b2c3d4e5f6g7h8i9","uid":"00u1","scp":["openid","read:messages"]}`,
			code:   token.WrongIssuer,
		},
		{
			name:   "of another custom server of the org, with the same audience",
			header: `{"kid":"ZkvelLN0seik7w4pc0prCcfUf0h2hFfiwkDeCrs0iUc","alg":"RS256"}`,
			claims: `{"ver":1,"jti":"AT.y","iss":"https://example.okta.com/oauth2/aus0other","aud":"api://default","iat":1795000000,"exp":1795003600,"cid":"0oa1b2c3d4e5f6g7h8i9","scp":["read:messages"],"sub":"s"}`,
			code:   token.WrongIssuer,
		},
	},
	"cognito": {
		{
			name:   "user, of the hosted pages",
			header: `{"kid":"1234exampleKid5678=","alg":"RS256"}`,
			claims: `{"sub":"aaaaaaaa-bbbb-cccc-dddd-example","cognito:groups":["admin"],"iss":"https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_EXAMPLE","version":2,"client_id":"1example23456789",
				"origin_jti":"o","event_id":"e","token_use":"access","scope":"phone openid https://api.example/read:messages https://other.example/write:messages","auth_time":1795000000,"exp":1795003600,"iat":1795000000,"jti":"j","username":"jane"}`,
			more:   "scope_prefix: https://api.example/",
			scopes: []string{"read:messages"}, client: "1example23456789",
		},
		{
			name:   "user, with no prefix said: scopes have their long names",
			header: `{"kid":"1234exampleKid5678=","alg":"RS256"}`,
			claims: `{"sub":"s","iss":"https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_EXAMPLE","client_id":"1example23456789","token_use":"access","scope":"openid https://api.example/read:messages","exp":1795003600,"iat":1795000000,"username":"jane"}`,
			scopes: []string{
				"openid",
				"https://api.example/read:messages",
			}, client: "1example23456789",
		},
		{
			name:   "user, of the SDK: the pool's own scope alone",
			header: `{"kid":"1234exampleKid5678=","alg":"RS256"}`,
			claims: `{"sub":"s","iss":"https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_EXAMPLE","client_id":"1example23456789","token_use":"access","scope":"aws.cognito.signin.user.admin","exp":1795003600,"iat":1795000000,"username":"jane"}`,
			more:   "scope_prefix: https://api.example/",
			client: "1example23456789",
		},
		{
			name:   "machine",
			header: `{"kid":"1234exampleKid5678=","alg":"RS256"}`,
			claims: `{"sub":"1example23456789","token_use":"access","scope":"https://api.example/read:messages https://api.example/write:messages","auth_time":1795000000,"iss":"https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_EXAMPLE","exp":1795003600,"iat":1795000000,"version":2,"jti":"j","client_id":"1example23456789"}`,
			more:   "scope_prefix: https://api.example/",
			scopes: []string{"read:messages", "write:messages"}, client: "1example23456789",
		},
		{
			name:   "groups as roles",
			header: `{"kid":"1234exampleKid5678=","alg":"RS256"}`,
			claims: `{"sub":"s","cognito:groups":["admin"],"iss":"https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_EXAMPLE","client_id":"1example23456789","token_use":"access","scope":"openid","exp":1795003600,"iat":1795000000,"username":"jane"}`,
			more:   "scope_claims: [\"/cognito:groups\"]\n    scope_names: {admin: write:messages}",
			scopes: []string{"write:messages"}, client: "1example23456789",
		},
		{
			name:   "ID token of the same app client",
			header: `{"kid":"another4exampleKid=","alg":"RS256"}`,
			claims: `{"sub":"s","cognito:groups":["admin"],"email_verified":true,"iss":"https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_EXAMPLE","cognito:username":"jane","origin_jti":"o","aud":"1example23456789","event_id":"e","token_use":"id","auth_time":1795000000,"exp":1795003600,"iat":1795000000,"jti":"j","email":"jane@example.com"}`,
			code:   token.WrongAudience, says: "audience (/client_id) is absent",
		},
		{
			name:   "ID token to which somebody's trigger added a client_id",
			header: `{"kid":"another4exampleKid=","alg":"RS256"}`,
			claims: `{"sub":"s","iss":"https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_EXAMPLE","aud":"1example23456789","client_id":"1example23456789","token_use":"id","exp":1795003600,"iat":1795000000,"scope":"https://api.example/read:messages"}`,
			code:   token.WrongClaim, says: `claim /token_use is "id", expected access`,
		},
		{
			name:   "of another app client of the pool",
			header: `{"kid":"1234exampleKid5678=","alg":"RS256"}`,
			claims: `{"sub":"s","iss":"https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_EXAMPLE","client_id":"9other87654321","token_use":"access","scope":"https://api.example/read:messages","exp":1795003600,"iat":1795000000}`,
			code:   token.WrongAudience, says: `"9other87654321"`,
		},
		{
			name:   "of another pool",
			header: `{"kid":"1234exampleKid5678=","alg":"RS256"}`,
			claims: `{"sub":"s","iss":"https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_OTHER","client_id":"1example23456789","token_use":"access","scope":"https://api.example/read:messages","exp":1795003600,"iat":1795000000}`,
			code:   token.WrongIssuer,
		},
		{
			name: "refresh token",
			raw:  "eyJjdHkiOiJKV1QiLCJlbmMiOiJBMjU2R0NNIiwiYWxnIjoiUlNBLU9BRVAifQ.a2V5.aXY.Y2lwaGVydGV4dA.dGFn",
			code: token.Malformed,
			says: "JWE",
		},
	},
	"google": {
		{
			name:   "service account",
			header: `{"alg":"RS256","kid":"6719678351a5faedc2e70274bbea62da2a8c4a12","typ":"JWT"}`,
			claims: `{"aud":"https://api.example","azp":"112233445566778899000","email":"reader@project.iam.gserviceaccount.com","email_verified":true,"exp":1795003600,"iat":1795000000,"iss":"https://accounts.google.com","sub":"112233445566778899000"}`,
			more:   `scope_names: {"112233445566778899000": read:messages write:messages}`,
			scopes: []string{"read:messages", "write:messages"}, client: "112233445566778899000",
		},
		{
			name:   "service account of a stranger: a genuine token, and no scope",
			header: `{"alg":"RS256","kid":"6719678351a5faedc2e70274bbea62da2a8c4a12","typ":"JWT"}`,
			claims: `{"aud":"https://api.example","azp":"999999999999999999999","email":"reader@strangers-project.iam.gserviceaccount.com","email_verified":true,"exp":1795003600,"iat":1795000000,"iss":"https://accounts.google.com","sub":"999999999999999999999","scope":"read:messages"}`,
			more: "scope_names: {\"112233445566778899000\": read:messages}\n    " +
				"grantable_scopes: [read:messages]",
			client: "999999999999999999999",
		},
		{
			name:   "user, of our own organization",
			header: `{"alg":"RS256","kid":"6719678351a5faedc2e70274bbea62da2a8c4a12","typ":"JWT"}`,
			claims: `{"iss":"https://accounts.google.com","azp":"1234-web.apps.googleusercontent.com","aud":"https://api.example","sub":"110169484474386276334","hd":"example.com","email":"jane@example.com","email_verified":true,"at_hash":"HK6E_P6Dh8Y93mRNtsDB1Q","iat":1795000000,"exp":1795003600}`,
			more: "required_claims: {/hd: [example.com]}\n    scope_names: " +
				"{\"110169484474386276334\": read:messages}",
			scopes: []string{"read:messages"}, client: "1234-web.apps.googleusercontent.com",
		},
		{
			name:   "user, of another organization",
			header: `{"alg":"RS256","kid":"6719678351a5faedc2e70274bbea62da2a8c4a12","typ":"JWT"}`,
			claims: `{"iss":"https://accounts.google.com","azp":"1234-web.apps.googleusercontent.com","aud":"https://api.example","sub":"1","email":"joe@gmail.com","email_verified":true,"iat":1795000000,"exp":1795003600}`,
			more:   "required_claims: {/hd: [example.com]}",
			code:   token.WrongClaim, says: "claim /hd is absent, expected example.com",
		},
		{
			name:   "for another service",
			header: `{"alg":"RS256","kid":"6719678351a5faedc2e70274bbea62da2a8c4a12","typ":"JWT"}`,
			claims: `{"aud":"https://other.example","azp":"112233445566778899000","exp":1795003600,"iat":1795000000,"iss":"https://accounts.google.com","sub":"112233445566778899000"}`,
			code:   token.WrongAudience,
		},
		{
			name:   "made by the service account itself",
			header: `{"alg":"RS256","kid":"6719678351a5faedc2e70274bbea62da2a8c4a12","typ":"JWT"}`,
			claims: `{"aud":"https://api.example","exp":1795003600,"iat":1795000000,"iss":"reader@project.iam.gserviceaccount.com","sub":"reader@project.iam.gserviceaccount.com"}`,
			code:   token.WrongIssuer,
		},
		{
			name: "access token",
			raw:  "ya29.a0AfB1byC2d3E4f5G6h7I8j9K0",
			code: token.Malformed,
			says: "2 segments",
		},
	},
}

// TestPresets verifies tokens in the form of each provider with its preset.
func TestPresets(t *testing.T) {
	provider := newProvider(t)
	for _, preset := range presetNames() {
		if len(shapes[preset]) == 0 {
			t.Errorf("no token tests preset %s: add shapes of its provider", preset)
		}
		example := examplePreset(t, preset)
		for _, shape := range shapes[preset] {
			t.Run(preset+"/"+shape.name, func(t *testing.T) {
				verifier := provider.verifier(t, "issuers:\n"+ofPreset(preset, example, shape.more))
				compact := shape.raw
				if compact == "" {
					compact = provider.sign(shape.header, shape.claims)
				}
				principal, err := verifier.Verify(t.Context(), compact)
				if shape.code != "" {
					refused, ok := errors.AsType[*token.Error](err)
					if !ok || refused.Code != shape.code ||
						!strings.Contains(refused.Detail, shape.says) {
						t.Errorf("the verdict is %v: want a refusal of code %q that says %q", err,
							shape.code, shape.says)
					}
					return
				}
				if err != nil {
					t.Fatalf("refused, and should pass: %v", err)
				}
				if got := principal.Scopes(); !slices.Equal(got, shape.scopes) {
					t.Errorf("scopes are %q, want %q", got, shape.scopes)
				}
				if principal.ClientID() != shape.client {
					t.Errorf("client is %q, want %q", principal.ClientID(), shape.client)
				}
			})
		}
	}
	for preset := range shapes {
		if !slices.Contains(presetNames(), preset) {
			t.Errorf("there are tokens for preset %s, and no such preset", preset)
		}
	}
}

// TestPresetsAreExamples: the file of a preset is a valid configuration, equal to the preset.
func TestPresetsAreExamples(t *testing.T) {
	for _, preset := range presetNames() {
		example := examplePreset(t, preset)
		issuers, err := parseIssuers("f.yaml", []byte("issuers:\n"+ofPreset(preset, example, "")))
		if err != nil || !reflect.DeepEqual(issuers, []token.Issuer{example}) {
			t.Errorf("preset %s is\n %+v, %v\nthe example itself\n %+v", preset, issuers, err,
				example)
		}
	}
}

// ofPreset is an entry of a file with a preset, and what the preset leaves to it.
func ofPreset(preset string, example token.Issuer, more string) string {
	entry := fmt.Sprintf("  - preset: %s\n    url: %s\n    audiences: [%s]\n    %s\n",
		preset, example.URL, strings.Join(example.Audiences, ", "), more)
	switch {
	case example.Tenants != nil:
		entry += fmt.Sprintf("    tenants: [%s]\n", strings.Join(example.Tenants, ", "))
	case example.DiscoveryURL != "":
		entry += fmt.Sprintf("    discovery_url: %s\n", example.DiscoveryURL)
	}
	return entry
}

// TestPresetsLeaveNoPlaceholder: a preset requires the settings whose values in its example are
// invented.
func TestPresetsLeaveNoPlaceholder(t *testing.T) {
	for preset, missing := range map[string]string{
		"entra":             "url audiences",
		"entra-v1":          "url audiences",
		"entra-b2c":         "url audiences discovery_url",
		"entra-multitenant": "audiences tenants",
	} {
		_, err := parseIssuers("f.yaml", []byte("issuers: [{preset: "+preset+"}]"))
		for _, key := range strings.Fields(missing) {
			if err == nil || !strings.Contains(err.Error(), key+" is not set") {
				t.Errorf("preset %s: %v, want a fault of %s", preset, err, key)
			}
		}
	}
	if _, err := parseIssuers("f.yaml", []byte(
		"issuers: [{preset: entra-multitenant, audiences: [a], insecure_any_tenant: true}]")); err != nil {
		t.Error(err)
	}
}

// TestEntraVersions: an API accepts tokens of both versions while its clients change.
func TestEntraVersions(t *testing.T) {
	provider := newProvider(t)
	verifier := provider.verifier(t, "issuers:\n"+
		ofPreset("entra", examplePreset(t, "entra"), "")+ofPreset("entra-v1",
		examplePreset(t, "entra-v1"), ""))
	for _, version := range []string{"entra", "entra-v1"} {
		shape := shapes[version][0]
		principal, err := verifier.Verify(t.Context(), provider.sign(shape.header, shape.claims))
		if err != nil || principal.ClientID() != shape.client {
			t.Errorf("%s: %v", version, err)
		}
	}
}

func examplePreset(t *testing.T, name string) token.Issuer {
	t.Helper()
	issuers, err := readIssuers("ORDERS_CONFIG", "presets/"+name+".yaml")
	if err != nil {
		t.Fatalf("the unchanged example does not work:\n%v", err)
	}
	if len(issuers) != 1 {
		t.Fatalf("the example has %d issuers: a preset is one", len(issuers))
	}
	return issuers[0]
}

// provider is any of the providers. It has one key, whose kid is that of the token.
type provider struct {
	key  *rsa.PrivateKey
	kids []string
}

func newProvider(t *testing.T) *provider {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p := &provider{key: key}
	for _, list := range shapes {
		for _, shape := range list {
			if _, rest, found := strings.Cut(shape.header, `"kid":"`); found {
				kid, _, _ := strings.Cut(rest, `"`)
				p.kids = append(p.kids, kid)
			}
		}
	}
	slices.Sort(p.kids)
	p.kids = slices.Compact(p.kids)
	return p
}

// verifier makes one of a configuration file, a minute after the tokens were issued.
func (p *provider) verifier(t *testing.T, file string) *token.Verifier {
	t.Helper()
	issuers, err := parseIssuers("f.yaml", []byte(file))
	if err != nil {
		t.Fatal(err)
	}
	v, err := token.NewVerifier(t.Context(), token.Config{
		Issuers: issuers, HTTPClient: &http.Client{Transport: p},
		Logger: slog.New(slog.DiscardHandler),
		Now:    func() time.Time { return time.Unix(shapesAt+60, 0) },
	})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func (p *provider) sign(header, claims string) string {
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode([]byte(header)) + "." + encode([]byte(claims))
	digest := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(nil, p.key, crypto.SHA256, digest[:])
	if err != nil {
		panic(err)
	}
	return signed + "." + encode(signature)
}

// RoundTrip responds like a provider, with its discovery document and its keys.
func (p *provider) RoundTrip(r *http.Request) (*http.Response, error) {
	body := `{"keys":[`
	if issuer, discovery := strings.CutSuffix(r.URL.String(),
		"/.well-known/openid-configuration"); discovery {
		keys := strings.TrimSuffix(issuer, "/") + "/keys"
		switch {
		case strings.HasSuffix(issuer, ".auth0.com"), strings.HasPrefix(issuer, "https://sts.windows.net/"):
			issuer += "/"
		case strings.HasSuffix(issuer, "/example.onmicrosoft.com/B2C_1_signin/v2.0"): // the policy
			issuer = "https://example.b2clogin.com/11111111-2222-3333-4444-555555555555/v2.0/"
		case issuer == "https://login.microsoftonline.com/common/v2.0":
			issuer = "https://login.microsoftonline.com/{tenantid}/v2.0" // in these words
			keys = "https://login.microsoftonline.com/common/discovery/v2.0/keys"
		}
		body = fmt.Sprintf(`{"issuer":%q,"jwks_uri":%q}`, issuer,
			keys)
	} else {
		encode := base64.RawURLEncoding.EncodeToString
		for n, kid := range p.kids {
			if n > 0 {
				body += ","
			}
			body += fmt.Sprintf(`{"kty":"RSA","use":"sig","alg":"RS256","kid":%q,"n":%q,"e":%q}`,
				kid, encode(p.key.N.Bytes()), encode(big.NewInt(int64(p.key.E)).Bytes()))
		}
		body += "]}"
	}
	return &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}},
		Body: io.NopCloser(strings.NewReader(body)), Request: r,
	}, nil
}
