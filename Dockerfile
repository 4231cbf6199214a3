# An image of the static program only, without a shell. It runs as user 65532, and writes only to
# /data.
#
#	docker build -t oasgate .
#	docker run --read-only --cap-drop ALL -p 3010:3010 \
#	  -e OASGATE_ISSUER=… -e OASGATE_AUDIENCE=… -v oasgate-data:/data oasgate
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags=-s -o /out/oasgate . && mkdir /out/data

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/oasgate /oasgate
COPY --from=build --chown=65532:65532 /out/data /data
ENV OASGATE_DATABASE_URL=sqlite:/data/oasgate.db
VOLUME /data
USER 65532:65532
EXPOSE 3010
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s CMD ["/oasgate", "health"]
ENTRYPOINT ["/oasgate"]
CMD ["serve"]
