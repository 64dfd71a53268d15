// The comparator in Go: a shared informer, a rate-limited workqueue and workers, as
// controller-runtime puts them together, with the object as a struct or unstructured (-dynamic).
//
// It tells the runner of its progress as the Python peers do: a line of JSON at each mark.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

type progress struct {
	sync.Mutex
	objects    int
	final      int64
	first      map[string]bool
	last       map[string]bool
	reconciles int
}

func (p *progress) mark(name string) {
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	line, _ := json.Marshal(map[string]any{
		"mark":       name,
		"at":         float64(time.Now().UnixNano()) / 1e9,
		"rss":        resident(),
		"cpu":        float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9,
		"reconciles": p.reconciles,
	})
	fmt.Println(string(line))
}

func resident() int {
	text, _ := os.ReadFile("/proc/self/status")
	for _, line := range strings.Split(string(text), "\n") {
		var kib int
		if n, _ := fmt.Sscanf(line, "VmRSS: %d kB", &kib); n == 1 {
			return kib
		}
	}
	return 0
}

func (p *progress) reconciled(key string, round int64) {
	p.Lock()
	defer p.Unlock()
	p.reconciles++
	if len(p.first) < p.objects {
		p.first[key] = true
		if len(p.first) == p.objects {
			p.mark("ready")
		}
	}
	if round >= p.final && !p.last[key] {
		p.last[key] = true
		if len(p.last) == p.objects {
			p.mark("converged")
		}
	}
}

// A kind of client: how to watch, to read the round from a cached object, and to write a status.
type peer struct {
	informer cache.SharedIndexInformer
	round    func(object any) int64
	write    func(ctx context.Context, namespace, name string, body []byte) error
}

func typed(config *rest.Config) (peer, error) {
	s := scheme()
	config.APIPath = "/apis"
	config.GroupVersion = &groupVersion
	config.NegotiatedSerializer = serializer.NewCodecFactory(s).WithoutConversion()
	client, err := rest.RESTClientFor(config)
	if err != nil {
		return peer{}, err
	}
	source := cache.NewListWatchFromClient(client, "agents", metav1.NamespaceAll, fields.Everything())
	informer := cache.NewSharedIndexInformer(source, &Agent{}, 0,
		cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
	return peer{
		informer: informer,
		round:    func(object any) int64 { return object.(*Agent).deepCopy().Spec.Round },
		write: func(ctx context.Context, namespace, name string, body []byte) error {
			return client.Patch(types.MergePatchType).Namespace(namespace).Resource("agents").
				Name(name).SubResource("status").Body(body).Do(ctx).Into(&Agent{})
		},
	}, nil
}

func untyped(config *rest.Config) (peer, error) {
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return peer{}, err
	}
	resource := groupVersion.WithResource("agents")
	factory := dynamicinformer.NewDynamicSharedInformerFactory(client, 0)
	return peer{
		informer: factory.ForResource(resource).Informer(),
		round: func(object any) int64 {
			copied := object.(*unstructured.Unstructured).DeepCopy()
			round, _, _ := unstructured.NestedInt64(copied.Object, "spec", "round")
			return round
		},
		write: func(ctx context.Context, namespace, name string, body []byte) error {
			_, err := client.Resource(resource).Namespace(namespace).
				Patch(ctx, name, types.MergePatchType, body, metav1.PatchOptions{}, "status")
			return err
		},
	}, nil
}

func main() {
	server := flag.String("server", "", "the API server")
	objects := flag.Int("objects", 0, "how many there are")
	final := flag.Int64("final", 5, "the round after which all is done")
	workers := flag.Int("workers", 0, "0: fill the cache, nothing more")
	patch := flag.Bool("patch", false, "write a status in each reconcile")
	useDynamic := flag.Bool("dynamic", false, "unstructured objects")
	flag.Parse()

	p := &progress{objects: *objects, final: *final, first: map[string]bool{}, last: map[string]bool{}}
	go func() { // end with the runner
		_, _ = os.Stdin.Read(make([]byte, 1))
		os.Exit(1)
	}()
	p.mark("started")
	config := &rest.Config{
		Host: *server,
		QPS:  -1,
		// The default keeps 25 idle connections: with 64 workers it would dial again and again.
		Transport: &http.Transport{
			DialContext:         (&net.Dialer{}).DialContext,
			MaxIdleConnsPerHost: 128,
			DisableCompression:  true,
		},
	}
	build := typed
	if *useDynamic {
		build = untyped
	}
	kind, err := build(config)
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	queue := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[string]())
	if *workers > 0 {
		enqueue := func(object any) {
			key, _ := cache.MetaNamespaceKeyFunc(object)
			queue.Add(key)
		}
		_, _ = kind.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc: enqueue,
			UpdateFunc: func(before, after any) {
				if before.(metav1.Object).GetGeneration() != after.(metav1.Object).GetGeneration() {
					enqueue(after)
				}
			},
		})
	}
	go kind.informer.Run(ctx.Done())
	for !kind.informer.HasSynced() {
		time.Sleep(time.Millisecond)
	}
	if len(kind.informer.GetStore().ListKeys()) != *objects {
		panic("not all objects are there")
	}
	p.mark("synced")
	if *workers == 0 {
		select {}
	}
	for range *workers {
		go func() {
			for {
				key, down := queue.Get()
				if down {
					return
				}
				reconcile(ctx, kind, p, key, *patch)
				queue.Forget(key)
				queue.Done(key)
			}
		}()
	}
	select {}
}

func reconcile(ctx context.Context, kind peer, p *progress, key string, patch bool) {
	object, exists, err := kind.informer.GetStore().GetByKey(key)
	if err != nil || !exists {
		panic("not in the cache: " + key)
	}
	round := kind.round(object)
	if patch {
		namespace, name, _ := cache.SplitMetaNamespaceKey(key)
		body := fmt.Appendf(nil, `{"status":{"observedRound":%d}}`, round)
		if err := kind.write(ctx, namespace, name, body); err != nil {
			panic(err)
		}
	}
	p.reconciled(key, round)
}
