// Peer takes and gives back locks with Apache Curator, as it is told on its standard input.
//
//   acquire ID KIND PATH N MS   KIND is mutex, read, write or semaphore (of N); answers yes or no
//   release ID
//
// Each ID has a thread of its own, for Curator's locks belong to threads.

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.recipes.locks.InterProcessMutex;
import org.apache.curator.framework.recipes.locks.InterProcessReadWriteLock;
import org.apache.curator.framework.recipes.locks.InterProcessSemaphoreV2;
import org.apache.curator.framework.recipes.locks.Lease;
import org.apache.curator.retry.ExponentialBackoffRetry;

public class Peer {
    interface Release {
        void run() throws Exception;
    }

    static final Map<String, Release> held = new HashMap<>();
    static final Map<String, ExecutorService> threads = new HashMap<>();

    public static void main(String[] args) throws Exception {
        CuratorFramework client = CuratorFrameworkFactory.newClient(args[0], 60000, 15000, new ExponentialBackoffRetry(100, 5));
        client.start();
        client.blockUntilConnected();
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        for (String line; (line = in.readLine()) != null; ) {
            String[] word = line.split(" ");
            ExecutorService thread = threads.computeIfAbsent(word[1], id -> Executors.newSingleThreadExecutor());
            thread.submit(() -> answer(client, word));
        }
        for (ExecutorService thread : threads.values()) {
            thread.shutdownNow();
        }
        client.close();
        System.exit(0);
    }

    static void answer(CuratorFramework client, String[] word) {
        String answer;
        try {
            answer = carryOut(client, word) ? "yes" : "no";
        } catch (Exception e) {
            answer = e.toString().replace('\n', ' ');
        }
        synchronized (System.out) {
            System.out.println(word[1] + " " + answer);
            System.out.flush();
        }
    }

    static boolean carryOut(CuratorFramework client, String[] word) throws Exception {
        if (word[0].equals("release")) {
            Release release;
            synchronized (held) {
                release = held.remove(word[1]);
            }
            release.run();
            return true;
        }
        Release release = acquire(client, word[2], word[3], Integer.parseInt(word[4]), Long.parseLong(word[5]));
        if (release == null) {
            return false;
        }
        synchronized (held) {
            held.put(word[1], release);
        }
        return true;
    }

    static Release acquire(CuratorFramework client, String kind, String path, int n, long ms) throws Exception {
        if (kind.equals("semaphore")) {
            InterProcessSemaphoreV2 semaphore = new InterProcessSemaphoreV2(client, path, n);
            Lease lease = semaphore.acquire(ms, TimeUnit.MILLISECONDS);
            return lease == null ? null : () -> semaphore.returnLease(lease);
        }
        InterProcessMutex lock;
        if (kind.equals("mutex")) {
            lock = new InterProcessMutex(client, path);
        } else {
            InterProcessReadWriteLock both = new InterProcessReadWriteLock(client, path);
            lock = kind.equals("read") ? both.readLock() : both.writeLock();
        }
        return lock.acquire(ms, TimeUnit.MILLISECONDS) ? lock::release : null;
    }
}
