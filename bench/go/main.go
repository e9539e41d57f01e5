// A prober on net/http as one would write it in an hour: N goroutines, HEAD, "STATUS URL" a line, status 0 for no answer.
package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

func main() {
	concurrency := flag.Int("concurrency", 256, "requests under way at once")
	perHost := flag.Int("per-host", 256, "connections to a host at once")
	redirects := flag.Int("redirects", 0, "redirects to follow")
	timeout := flag.Duration("timeout", 10*time.Second, "for a request in all")
	keep := flag.Bool("keep", false, "keep connections for the next request")
	cafile := flag.String("cafile", "", "PEM file of authorities to trust")
	server := flag.String("dns", "", "DNS server to ask")
	flag.Parse()

	dialer := &net.Dialer{Resolver: &net.Resolver{PreferGo: true}}
	if *server != "" {
		dialer.Resolver.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "udp", *server)
		}
	}
	trust := &tls.Config{}
	if pem, err := os.ReadFile(*cafile); err == nil {
		trust.RootCAs = x509.NewCertPool()
		trust.RootCAs.AppendCertsFromPEM(pem)
	}
	transport := &http.Transport{
		DisableKeepAlives:   !*keep,
		DisableCompression:  true,
		MaxIdleConnsPerHost: *concurrency,
		TLSClientConfig:     trust,
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			connection, err := dialer.DialContext(ctx, "tcp4", address)
			if err == nil {
				_ = connection.(*net.TCPConn).SetLinger(0) // reset on close, no TIME_WAIT
			}
			return connection, err
		},
	}
	if *perHost < *concurrency {
		transport.MaxConnsPerHost = *perHost
	}
	client := &http.Client{
		Timeout: *timeout,
		CheckRedirect: func(_ *http.Request, via []*http.Request) error {
			if len(via) > *redirects {
				return http.ErrUseLastResponse
			}
			return nil
		},
		Transport: transport,
	}

	file, err := os.Open(flag.Arg(0))
	if err != nil {
		panic(err)
	}
	urls, lines := make(chan string, *concurrency), make(chan string, *concurrency)
	go func() {
		for scanner := bufio.NewScanner(file); scanner.Scan(); {
			urls <- scanner.Text()
		}
		close(urls)
	}()
	var workers sync.WaitGroup
	for range *concurrency {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for url := range urls {
				status := 0
				if response, err := client.Head(url); err == nil {
					response.Body.Close()
					status = response.StatusCode
				}
				lines <- fmt.Sprintf("%d %s\n", status, url)
			}
		}()
	}
	go func() { workers.Wait(); close(lines) }()
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	for line := range lines {
		out.WriteString(line)
	}
}
