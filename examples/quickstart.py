import asyncio
from uuid import UUID

from pydantic import BaseModel

from streamvibe import Client, Context, Worker, job_type


class Greeting(BaseModel):
    name: str


class Greeted(BaseModel):
    text: str


@job_type("greet", max_attempts=5)
async def greet(ctx: Context, params: Greeting) -> Greeted:
    ctx.log("Greeting", name=params.name)
    ctx.progress(0.5, "half way")
    return Greeted(text=f"Hello, {params.name}!")


async def main() -> None:
    user_id = UUID("00000000-0000-4000-8000-000000000001")
    async with Client() as client:
        await client.register(greet)
        asked = await client.request(greet, Greeting(name="Ada"), user_id=user_id, force=True)
        print(asked.outcome)  # created

        worker = Worker(None, [greet])  # None: the database that Client() uses
        running = asyncio.create_task(worker.run())
        done = await client.wait(asked, timeout=30)
        print(done.result.text)  # Hello, Ada!
        worker.stop()
        await running

        again = await client.request(greet, Greeting(name="Ada"), user_id=user_id)
        print(again.outcome, again.result.text)  # cached Hello, Ada!


if __name__ == "__main__":
    asyncio.run(main())
