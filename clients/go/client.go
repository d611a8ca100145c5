// Package mailing is the Go client of Mailing, a service that sends campaigns through your HTTP
// gateway and records the outcome of every message.
//
// [Connect] opens a [Client], whose fields are the generated clients of every service. Failed calls
// return an [*Error]. [Client.WatchMailing], [Client.WatchMessages] and [Client.ImportClients] do what
// takes more than one call. A Client may be shared by goroutines.
package mailing

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	mailingv1 "example.com/mailing/clients/go/gen/mailing/v1"
)

// Version is the version of this module.
const Version = "0.1.0"

const (
	maxReceivedBytes = 64 << 20
	defaultTimeout   = time.Minute
	keepaliveTime    = 30 * time.Second
	keepaliveTimeout = 10 * time.Second
)

// Client is a connection to the service. Its fields are the generated clients.
type Client struct {
	Clients   mailingv1.ClientServiceClient
	Mailings  mailingv1.MailingServiceClient
	Messages  mailingv1.MessageServiceClient
	Delivery  mailingv1.DeliveryServiceClient
	Schedules mailingv1.ScheduleServiceClient
	Segments  mailingv1.SegmentServiceClient
	Admin     mailingv1.AdminServiceClient

	conn *grpc.ClientConn
}

// TokenSource returns the bearer token for a call. It is asked for every call, so it should keep the
// token and renew it in time.
type TokenSource func(ctx context.Context) (string, error)

// Option changes how Connect connects.
type Option func(*options)

type options struct {
	tls     *tls.Config
	token   TokenSource
	timeout time.Duration
	dial    []grpc.DialOption
}

// WithToken sends a bearer token with every call.
func WithToken(token string) Option {
	return WithTokenSource(func(context.Context) (string, error) { return token, nil })
}

// WithTokenSource asks source for the bearer token of every call.
func WithTokenSource(source TokenSource) Option {
	return func(o *options) { o.token = source }
}

// WithTLS encrypts the connection; without it everything is plain text, which suits loopback and
// private networks only. [TLSFromFiles] makes a configuration; &tls.Config{} trusts the system's authorities.
func WithTLS(config *tls.Config) Option {
	return func(o *options) { o.tls = config }
}

// WithTimeout limits each unary call that has no deadline of its own: one minute by default.
func WithTimeout(timeout time.Duration) Option {
	return func(o *options) { o.timeout = timeout }
}

// WithDialOptions adds options of gRPC's own, which win over those of this package.
func WithDialOptions(dial ...grpc.DialOption) Option {
	return func(o *options) { o.dial = append(o.dial, dial...) }
}

// Connect returns a client of the service at target, such as "mailing.example.com:50051" or
// "unix:/run/mailing". The first call connects. Where the name has several addresses, calls go to them in turn.
func Connect(target string, opts ...Option) (*Client, error) {
	if !isAddress(target) {
		return nil, fmt.Errorf("mailing: %q is no address of a service such as mailing.example.com:50051 or unix:/run/mailing", target)
	}
	chosen := options{timeout: defaultTimeout}
	for _, opt := range opts {
		opt(&chosen)
	}
	conn, err := grpc.NewClient(target, append(dialOptions(chosen), chosen.dial...)...)
	if err != nil {
		return nil, fmt.Errorf("mailing: connection to %q: %w", target, err)
	}
	return New(conn), nil
}

var (
	// What follows a name of gRPC's own ways to find a service is left to it.
	schemes  = regexp.MustCompile(`^(unix|unix-abstract|dns|passthrough|xds):`)
	hostPort = regexp.MustCompile(`^[^/]+:(\d{1,5})$`)
)

// isAddress reports whether gRPC can make something of target: anything else it would look up, and fail at the first call.
func isAddress(target string) bool {
	if schemes.MatchString(target) {
		return true
	}
	found := hostPort.FindStringSubmatch(target)
	if found == nil {
		return false
	}
	port, err := strconv.Atoi(found[1])
	return err == nil && 0 < port && port < 1<<16
}

// New returns a client that uses conn, for connections that need more than Connect offers.
func New(conn *grpc.ClientConn) *Client {
	return &Client{
		Clients:   mailingv1.NewClientServiceClient(conn),
		Mailings:  mailingv1.NewMailingServiceClient(conn),
		Messages:  mailingv1.NewMessageServiceClient(conn),
		Delivery:  mailingv1.NewDeliveryServiceClient(conn),
		Schedules: mailingv1.NewScheduleServiceClient(conn),
		Segments:  mailingv1.NewSegmentServiceClient(conn),
		Admin:     mailingv1.NewAdminServiceClient(conn),
		conn:      conn,
	}
}

// Conn returns the connection, for other services on it such as grpc.health.v1.
func (c *Client) Conn() *grpc.ClientConn { return c.conn }

// Close ends the connection and every call on it.
func (c *Client) Close() error { return c.conn.Close() }

func dialOptions(o options) []grpc.DialOption {
	transport := insecure.NewCredentials()
	if o.tls != nil {
		transport = credentials.NewTLS(o.tls)
	}
	found := []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithUserAgent("mailing-go/" + Version),
		grpc.WithDefaultServiceConfig(serviceConfig()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxReceivedBytes)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{BaseDelay: firstPause, Multiplier: 2, Jitter: 0.2, MaxDelay: longestPause},
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveTime, Timeout: keepaliveTimeout}),
		grpc.WithChainUnaryInterceptor(translateUnary, limitTime(o.timeout), addRequestID, obeyRetryInfo),
		grpc.WithChainStreamInterceptor(translateStream),
	}
	if o.token != nil {
		found = append(found, grpc.WithPerRPCCredentials(bearer{o.token}))
	}
	return found
}

// TLSFromFiles returns a configuration for WithTLS from PEM files: the authority to trust (the
// system's when empty), and the caller's certificate and key where the service wants one.
func TLSFromFiles(caFile, certFile, keyFile string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile != "" {
		pem, err := os.ReadFile(caFile)
		if err != nil {
			return nil, fmt.Errorf("mailing: the authority to trust: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("mailing: %s has no certificate in PEM", caFile)
		}
	}
	if certFile != "" || keyFile != "" {
		own, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			return nil, fmt.Errorf("mailing: the caller's certificate and key: %w", err)
		}
		config.Certificates = []tls.Certificate{own}
	}
	return config, nil
}

type bearer struct{ source TokenSource }

func (b bearer) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	token, err := b.source(ctx)
	if err != nil {
		return nil, err
	}
	return map[string]string{"authorization": "Bearer " + token}, nil
}

// RequireTransportSecurity allows plain text, since a proxy on this machine may do the encryption.
func (b bearer) RequireTransportSecurity() bool { return false }
